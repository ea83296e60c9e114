//! What checksums and counts say against an inode whose contents are given out all the same.
//!
//! A sum tells that something was changed, not what: the times of a file may be all that is
//! wrong. So nothing is refused, and what is restored is called doubtful.

mod map;

use super::{
    Ext, MAX_DIRECTORY,
    inode::Inode,
    layout::{InodeFlags, InodeNumber, ROOT},
    sums::{InodeSums, Sums},
};
use crate::{NodeId, NodeKind};
use disk_io::{Disk, Result, RunKind};
use map::Map;

/// One sentence for each kind of sum that is wrong, and for each count that contradicts another.
/// What is doubtful about the whole volume is told with its root, which every path leads through:
/// once, and not with each file.
pub(super) fn doubts(fs: &Ext, node: NodeId) -> Vec<String> {
    let mut doubts = Vec::new();
    let Ok(number) = u32::try_from(node.record) else {
        return doubts;
    };
    if number == ROOT.0 {
        let all = fs.doubts.iter();
        doubts.extend(all.map(|why| format!("all of the volume: {why}")));
    }
    if let Err(e) = look(fs, InodeNumber(number), &mut doubts) {
        doubts.push(format!("its checksums were not looked at: {e}"));
    }
    doubts
}

fn look(fs: &Ext, number: InodeNumber, doubts: &mut Vec<String>) -> Result<()> {
    let place = fs.sb.inode_offset(&*fs.volume, number)?;
    if fs.sb.is_table_doubtful(&*fs.volume, number)? {
        doubts.push(format!(
            "the descriptor that says where its inode ({}) is, is damaged and has no good copy",
            number.0
        ));
    }
    let mut bytes = vec![0; fs.sb.inode_size.into()];
    fs.volume.read_exact_at(&mut bytes, place)?;
    let inode = Inode::parse(&fs.sb, &bytes, place, number)?;
    if inode.is_odd_root() {
        doubts.push("the root's inode says that it is no directory, or was freed".into());
    }
    let sums = Sums::of(&fs.sb).map(|sums| sums.of_inode(number, &bytes));
    if sums.is_some_and(|sums| sums.inode(&bytes).is_some()) {
        doubts.push(format!("the checksum of its inode ({}) is wrong", number.0));
    }
    let directory = match inode.kind() {
        Some(NodeKind::Directory) => true,
        Some(NodeKind::File) => false,
        _ => return Ok(()),
    };
    if inode.has(InodeFlags::INLINE_DATA | InodeFlags::COMPRESSED) {
        return Ok(());
    }
    let map = Map::read(fs, &inode, sums)?;
    if map.wrong > 0 {
        doubts.push(format!(
            "checksums of blocks that say where its contents are, are wrong: {} of them",
            map.wrong
        ));
    }
    map.against(fs, &inode, doubts);
    if directory && let Some(sums) = sums {
        let wrong = wrong_directory_blocks(fs, &inode, sums)?;
        if wrong > 0 {
            doubts.push(format!(
                "checksums of its blocks are wrong, {wrong} of them: names may be lost, or lead elsewhere"
            ));
        }
    }
    Ok(())
}

fn wrong_directory_blocks(fs: &Ext, inode: &Inode, sums: InodeSums) -> Result<u64> {
    let mut wrong = 0u64;
    each_block(fs, inode, &mut |_, block| {
        let indexed = inode.has(InodeFlags::INDEX);
        if sums.directory_block(block, indexed).is_some() {
            wrong = wrong.saturating_add(1);
        }
    })?;
    Ok(wrong)
}

/// Visits the whole blocks of a directory that are stored, with their places in it.
pub(super) fn each_block(fs: &Ext, inode: &Inode, visit: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
    // Nothing lists one that is longer, and a map may lead to the same blocks again and again.
    if inode.size > MAX_DIRECTORY.min(fs.volume.len()) {
        return Ok(());
    }
    let contents = fs.contents(inode)?;
    let mut block = vec![0; fs.sb.block_size as usize];
    let mut at = 0u64;
    while at.saturating_add(block.len() as u64) <= contents.len() {
        let run = contents.run_at(at)?;
        if run.kind != RunKind::Data {
            at = at.saturating_add(run.len);
            continue;
        }
        contents.read_exact_at(&mut block, at)?;
        visit(at, &block);
        at = at.saturating_add(block.len() as u64);
    }
    Ok(())
}
