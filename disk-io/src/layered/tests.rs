//! A model: layers are maps from 512-byte blocks to places; reading must agree with looking
//! the block up by hand.

use super::*;
use crate::{conformance, mem::MemDisk};
use proptest::prelude::*;

const BLOCK: usize = 512;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Below,
    Zero,
    Stored,
    Encoded,
}

/// Block i of a layer is stored at block `perm(i)` of its file, or is a unit of 2 blocks.
#[derive(Debug)]
struct Model {
    kinds: Vec<Kind>,
    file: Arc<dyn Disk>,
}

fn content(layer: u8, block: usize) -> [u8; BLOCK] {
    let mut b = [layer; BLOCK];
    b[..8].copy_from_slice(&(block as u64 + 1).to_le_bytes());
    b
}

impl BlockMap for Model {
    fn len(&self) -> u64 {
        (self.kinds.len() * BLOCK) as u64
    }
    fn name(&self) -> String {
        "model".into()
    }
    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        let mut at = start as usize;
        let end = (start + len) as usize;
        while at < end {
            let block = at / BLOCK;
            let skip = at % BLOCK;
            let n = (BLOCK - skip).min(end - at);
            let place = match self.kinds[block] {
                Kind::Below => Place::Below,
                Kind::Zero => Place::Zero,
                Kind::Stored => Place::Stored {
                    file: FileIndex(0),
                    offset: at as u64,
                },
                Kind::Encoded => Place::Encoded {
                    unit: UnitId(block as u64),
                    unit_len: BLOCK as u32,
                    skip: skip as u32,
                },
            };
            emit(Mapping {
                len: n as u64,
                place,
            });
            at += n;
        }
        Ok(())
    }
    fn file(&self, _: FileIndex) -> Result<Arc<dyn Disk>> {
        Ok(self.file.clone())
    }
    fn file_name(&self, _: FileIndex) -> String {
        "model".into()
    }
    fn decode(&self, unit: UnitId, out: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(out, unit.0 * BLOCK as u64)
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Below),
        1 => Just(Kind::Zero),
        2 => Just(Kind::Stored),
        1 => Just(Kind::Encoded)
    ]
}

proptest! {
    #[test]
    fn merged_layers_read_like_a_walk(
        layers in prop::collection::vec(prop::collection::vec(kind(), 1..40), 1..6)
    ) {
        let len = layers[0].len();
        let mut expected = Vec::new();
        for block in 0..len {
            let mut bytes = [0; BLOCK];
            for (n, layer) in layers.iter().enumerate() {
                match layer.get(block) {
                    Some(Kind::Below) => continue,
                    None | Some(Kind::Zero) => {}
                    Some(_) => bytes = content(n as u8, block),
                }
                break;
            }
            expected.extend_from_slice(&bytes);
        }
        let maps = layers.iter().enumerate().map(|(n, kinds)| {
            let file: Vec<u8> = (0..kinds.len()).flat_map(|b| content(n as u8, b)).collect();
            Arc::new(Model { kinds: kinds.clone(), file: Arc::new(MemDisk::new(file)) }) as Arc<dyn BlockMap>
        }).collect();
        let disk = Layered::new(maps, Memory::new(1 << 20)).unwrap();
        conformance::check(&disk, &expected);
    }
}

/// A window boundary in the middle of a run, and a disk of many windows.
#[test]
fn windows_join() {
    #[derive(Debug)]
    struct Flat(Arc<dyn Disk>);
    impl BlockMap for Flat {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn name(&self) -> String {
            "flat".into()
        }
        fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
            let place = Place::Stored {
                file: FileIndex(0),
                offset: start,
            };
            emit(Mapping { len, place });
            Ok(())
        }
        fn file(&self, _: FileIndex) -> Result<Arc<dyn Disk>> {
            Ok(self.0.clone())
        }
        fn file_name(&self, _: FileIndex) -> String {
            "flat".into()
        }
    }
    let mut below = crate::SparseMemDisk::new(5 * WINDOW + 7);
    below.put(WINDOW - 3, b"across");
    below.put(5 * WINDOW, b"the end");
    let disk = Layered::new(vec![Arc::new(Flat(Arc::new(below)))], Memory::new(1 << 20)).unwrap();
    conformance::check_rules(&disk);
    let mut buf = [0; 6];
    disk.read_exact_at(&mut buf, WINDOW - 3).unwrap();
    assert_eq!(&buf, b"across");
    let mut end = [0; 7];
    disk.read_exact_at(&mut end, 5 * WINDOW).unwrap();
    assert_eq!(&end, b"the end");
    assert_eq!(disk.run_at(2 * WINDOW).unwrap().kind, RunKind::Zero);
}

/// A layer that answers for every 512-byte block on its own, and counts how often it is asked.
#[derive(Debug)]
struct Scattered {
    asked: AtomicU64,
    bad: bool,
}

impl BlockMap for Scattered {
    fn len(&self) -> u64 {
        WINDOW
    }
    fn name(&self) -> String {
        "scattered".into()
    }
    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        for block in 0..len / BLOCK as u64 {
            let offset = (start / BLOCK as u64 + block) * 7 % 65_536 * BLOCK as u64;
            emit(Mapping {
                len: BLOCK as u64,
                place: match self.bad {
                    true => Place::Bad(DiskError::corrupt("finding a grain").offset(offset)),
                    false => Place::Stored {
                        file: FileIndex(0),
                        offset,
                    },
                },
            });
        }
        Ok(())
    }
    fn file(&self, _: FileIndex) -> Result<Arc<dyn Disk>> {
        Ok(Arc::new(crate::SparseMemDisk::new(WINDOW)))
    }
    fn file_name(&self, _: FileIndex) -> String {
        "scattered".into()
    }
}

/// The windows that cost most to merge must be the last not to be kept.
#[test]
fn the_most_scattered_window_is_merged_once() {
    let map = Arc::new(Scattered {
        asked: AtomicU64::new(0),
        bad: false,
    });
    let disk = Layered::new(vec![map.clone()], Memory::new(48 << 20)).unwrap();
    for at in (0..WINDOW).step_by(1 << 20) {
        disk.read_exact_at(&mut [0; 4096], at).unwrap();
    }
    assert_eq!(map.asked.load(Ordering::Relaxed), 1);
}

#[test]
fn damage_everywhere_is_told_everywhere_in_little_memory() {
    let map = Arc::new(Scattered {
        asked: AtomicU64::new(0),
        bad: true,
    });
    let disk = Layered::new(vec![map], Memory::new(48 << 20)).unwrap();
    for at in [0, WINDOW / 2, WINDOW - 512] {
        assert_eq!(disk.run_at(at).unwrap().kind, RunKind::Data);
        let e = disk.read_exact_at(&mut [0; 512], at).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::Corrupt, "{at}");
    }
    let (window, _) = disk.window(0).unwrap();
    assert!(window.bad.len() <= MAX_BAD + 1);
    assert!(window.segments.len() <= MAX_BAD + 1);
}
