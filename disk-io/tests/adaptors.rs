//! Slices, disks in memory, and disks that fail.

use disk_io::{
    Disk, ErrorKind, Fields, MemDisk, Slice, SparseMemDisk, conformance,
    faults::{Counting, FailAfter, FailRange},
    positioned,
};
use proptest::prelude::*;
use std::{io::Read, sync::Arc};

proptest! {
    #[test]
    fn a_sparse_memory_disk_is_the_vector_it_models(
        len in 0usize..5000,
        writes in prop::collection::vec((0usize..5000, prop::collection::vec(1u8.., 0..700)), 0..12)
    ) {
        let mut disk = SparseMemDisk::new(len as u64);
        let mut model = vec![0; len];
        for (at, bytes) in writes {
            disk.put(at as u64, &bytes);
            model.resize(model.len().max(at + bytes.len()), 0);
            model[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        conformance::check(&disk, &model);
        conformance::check(&MemDisk::sparse(model.clone()), &model);
        let cut = model.len() / 3;
        let slice = Slice::new(Arc::new(disk), cut as u64, (model.len() - cut) as u64).unwrap();
        conformance::check(&slice, &model[cut..]);
    }
}

#[test]
fn a_slice_stays_inside() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(vec![1; 100]));
    for (start, len) in [(50, 51), (101, 0), (u64::MAX, 2), (1, u64::MAX)] {
        let e = Slice::new(disk.clone(), start, len).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfRange);
    }
}

#[test]
fn failures_are_where_they_were_put() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(vec![1; 4096]));
    let dying = FailAfter::new(disk.clone(), 2);
    dying.read_exact_at(&mut [0; 8], 0).unwrap();
    dying.run_at(0).unwrap();
    assert_eq!(
        dying.read_exact_at(&mut [0; 8], 0).unwrap_err().kind(),
        ErrorKind::Io
    );
    let bad = FailRange::new(disk.clone(), 1000..1001);
    bad.read_exact_at(&mut [0; 1000], 0).unwrap();
    let e = bad.read_exact_at(&mut [0; 1001], 0).unwrap_err();
    assert_eq!(e.at(), Some(1000));
    let counting = Counting::new(disk);
    counting.read_exact_at(&mut [0; 10], 5).unwrap();
    assert_eq!(counting.so_far(), (1, 10));
}

#[test]
fn fields_never_leave_their_structure() {
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    let f = Fields::new(&bytes, 100, "test header");
    assert_eq!(f.u32_le(1).unwrap(), 0x0504_0302);
    assert_eq!(f.u16_be(0).unwrap(), 0x0102);
    assert_eq!(f.sub(4, 4, "part").unwrap().u16_le(2).unwrap(), 0x0807);
    for at in [2, 8, 9, usize::MAX] {
        let e = f.u64_le(at).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        assert!(e.to_string().contains("test header"), "{e}");
    }
}

#[test]
fn other_peoples_code_can_read_a_disk() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(b"hello".to_vec()));
    let mut text = String::new();
    positioned::cursor(disk).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}
