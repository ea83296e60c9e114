//! What each kind of finding means, and what to do about it.

/// What is known of a kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The kind.
    pub code: &'static str,
    /// What it means for whoever needs the data.
    pub means: &'static str,
    /// What to do.
    pub todo: &'static str,
}

macro_rules! table {
    ($($code:literal $means:literal $todo:literal;)*) => {
        &[$(Explanation { code: $code, means: $means, todo: $todo }),*]
    };
}

/// Every kind, sorted.
pub const ALL: &[Explanation] = table! {
"block-count-differs" "the header counts other blocks than the map has; every block can be read" "let the disk's own program repair it before it is written to";
"block-in-metadata" "a block is said to be where header or tables are" "restore the range from another copy";
"block-outside-file" "a block is said to be behind the end of the file: the file was cut short" "fetch the file again; what is inside can be restored";
"capacity-differs" "the package's descriptor gives the disk another length than it has" "trust the disk; correct the descriptor before importing";
"chain-endless" "the chain of parents leads back into itself or does not end" "restore the descriptors from a backup";
"child-stale" "the disk was changed after a disk was made on top of it: that child mixes two states" "restore both from one backup; do not use the child";
"copied-flag-wrong" "an entry and its reference count disagree on whether a cluster is shared" "qemu-img check -r all on a copy";
"datastore-odd" "something about the datastore is not as a host leaves it" "read what it says";
"datastore-unusable" "the datastore cannot be opened" "give all its devices with --with";
"descriptor-damaged" "the descriptor inside the file is damaged; what is left of it says that the disk is whole, and it is read by its header" "write a sound copy: check --repair, or convert";
"descriptor-odd" "a line of the descriptor is not understood or repeated; the disk reads" "compare it with a descriptor of the same product";
"digest-differs" "a file is not the one that was exported" "fetch the package again; do not import it";
"disk-missing" "a disk of the machine is not there or cannot be opened" "restore its files beside the configuration";
"exfat-bitmap-damaged" "the map of clusters in use cannot be read" "let chkdsk repair the volume in a copy";
"exfat-bitmap-free" "clusters of a file are called free: the guest would write over them" "let chkdsk repair the volume before the guest writes to it";
"exfat-boot-copy-differs" "the boot region or its backup is damaged; the sound one is used" "let chkdsk repair the volume in a copy";
"exfat-chain-broken" "a file's chain of clusters breaks off" "restore the file from another copy";
"exfat-chain-odd" "a file's chain does not fit its size" "compare the file with another copy";
"exfat-clusters-lost" "clusters are in use that no file has" "harmless: fsck.exfat gives them back";
"exfat-clusters-shared" "two files have the same clusters: at most one of them is right" "restore both from another copy";
"exfat-directory-damaged" "a directory cannot be read whole" "restore its files from another copy";
"exfat-entry-damaged" "what a directory says of a file is damaged: where its contents are cannot be believed" "restore the file from another copy";
"exfat-name-hash-wrong" "a file's name and the hash of it do not fit: Windows may not find it; here it is found" "compare the name with another copy";
"exfat-upcase-damaged" "the table of letters is damaged: names are compared by Unicode's" "let chkdsk repair the volume in a copy";
"ext-attributes-damaged" "a block of attributes (access control, labels) of files is damaged, or counts fewer files than have it" "let e2fsck repair the volume in a copy";
"ext-bitmap-damaged" "a bitmap of blocks or inodes cannot be read, or its checksum is wrong" "let e2fsck repair the volume in a copy";
"ext-bitmap-free" "blocks of files are called free: the guest would write over them" "let e2fsck repair the volume before the guest writes to it";
"ext-blocks-shared" "two files, or a file and the volume's own structures, have the same blocks: at most one of them is right" "restore both from another copy";
"ext-directory-damaged" "a directory cannot be read whole: names may be missing from it" "restore its files from another copy";
"ext-directory-sum-wrong" "the checksum of a block of a directory is wrong: names in it may be others" "compare its files with another copy";
"ext-entry-stray" "a directory has a name that no file has" "restore the file from another copy";
"ext-group-damaged" "a block group's descriptor is damaged: its files may not be found" "let e2fsck repair the volume in a copy";
"ext-inode-called-free" "a file's inode is called free: the guest would give it to another file" "let e2fsck repair the volume before the guest writes to it";
"ext-inode-damaged" "a file's inode, or the list of its blocks, is damaged" "restore the file from another copy";
"ext-journal-lost" "changes in the journal of the volume are not in its files: they are damaged, or not read here" "let the guest or e2fsck replay the journal in a copy";
"ext-links-wrong" "a file has other names than its inode counts" "let e2fsck repair the volume in a copy";
"ext-name-lost" "a file has no name: no path leads to it" "let e2fsck repair the volume in a copy, and look in lost+found";
"ext-parent-wrong" "a directory says that it is in another one than it is" "let e2fsck repair the volume in a copy";
"ext-superblock-copy-differs" "a copy of the superblock is damaged or another volume's" "let e2fsck repair the volume in a copy";
"ext-superblock-damaged" "the superblock is damaged; a copy of it may be used" "let e2fsck repair the volume in a copy";
"ext-too-large" "the volume is too large for its blocks to be held against each other" "e2fsck -n";
"extent-capacity-differs" "the descriptor and an extent's header give different lengths" "find out which is right before writing to the disk";
"extent-cut-short" "a flat extent ends before the disk does" "fetch the file again; what is there can be restored";
"extent-file-longer" "a flat extent's file goes on behind what the descriptor says: a line of it may be wrong, and the disk shorter or shifted" "compare the lengths of the extents with those of their files, and correct the descriptor";
"extent-unusable" "an extent of the link cannot be opened" "read what it says; the other links were checked";
"extents-overlap" "two extents have the same bytes of a file: the descriptor lists one twice, or was pasted together" "compare the descriptor with one of the same product; do not trust what lies behind the first";
"extents-short-of-geometry" "the extents are shorter than the disk whose geometry the descriptor has: a line of it may be lost or wrong" "compare the lengths of the extents with those of their files, and correct the descriptor";
"fat-boot-copy-differs" "the boot sector or its backup is damaged; the sound one is used" "let chkdsk repair the volume in a copy";
"fat-boot-doubtful" "the volume does not bear its boot sector out: tables or directories are not where it says" "what is read of this volume may be wrong: take it from another copy";
"fat-chain-broken" "a file's chain of clusters breaks off" "restore the file from another copy";
"fat-chain-odd" "a file's chain does not fit its size, or a copy of the table had to serve" "compare the file with another copy";
"fat-clusters-lost" "clusters are in use that no file has" "harmless: fsck.fat gives them back";
"fat-clusters-shared" "two files have the same clusters: at most one of them is right" "restore both from another copy";
"fat-copies-differ" "the copies of the allocation table differ" "compare the files there with another copy";
"fat-directory-damaged" "a directory cannot be read whole" "restore its files from another copy";
"fat-media-differs" "the boot sector and the allocation table have another media byte each" "harmless: nothing is placed by it";
"footer-copy-damaged" "the footer's copy at the beginning is damaged; the footer itself is sound" "copy the last 512 bytes over the first";
"footer-copy-differs" "the footer and its copy say different things" "the one at the end is what readers use";
"footer-damaged" "the footer at the end is damaged or cut off; its copy is used" "the file may have been cut: compare its length with the source's";
"footer-differs" "the footer of a stream contradicts its header" "fetch the file again";
"footer-misplaced" "something stands behind the footer of a stream" "harmless for readers that look for it; strict ones refuse";
"footer-missing" "a stream has no footer: it was cut short or never finished" "fetch the file again";
"free-sector-in-use" "the delta's free sector lies before grains that are in use" "do not let a host write to it; convert it to a new disk";
"free-sector-outside-file" "the delta's header says that more of the file is in use than there is" "the file may have been cut short: fetch it again";
"geometry-of-any" "the geometry is the one that products write for any disk, and covers more than this one has" "harmless: the length comes from the extent";
"grain-directory-entry-invalid" "an entry of the grain directory is impossible; its range cannot be read" "restore the range from another copy";
"grain-directory-outside-file" "the grain directory is not in the file" "fetch the file again";
"grain-directory-unusable" "one of the two grain directories is damaged; the other one is used" "convert to a new disk while the other one is sound";
"grain-entry-invalid" "an entry of a grain table is impossible; the grain cannot be read" "restore the grain from another copy";
"grain-in-metadata" "a grain is said to be where header or tables are" "restore the grain from another copy";
"grain-marker-wrong" "a table leads to a grain of another place" "restore the grain from another copy";
"grain-not-inflated" "a compressed grain is damaged" "restore the grain from another copy";
"grain-outside-file" "a grain is said to be behind the end of the file" "if the file was cut short fetch it again, else restore the grain from another copy";
"grain-short" "a compressed grain holds less than a grain" "restore the grain from another copy";
"grain-size-invalid" "the length of a compressed grain is impossible" "restore the grain from another copy";
"grain-table-in-metadata" "a grain table is said to be where header or directory are" "restore the range from another copy";
"grain-table-outside-file" "a grain table is said to be behind the end of the file" "fetch the file again";
"grain-tables-differ" "the two copies of a grain table differ; where one is possible it is used" "convert to a new disk while that can be told";
"grain-unaligned" "a grain begins off the boundary of all others" "compare the grain with another copy";
"grain-unreferenced" "a stream holds a grain that its tables do not lead to" "restore the grain from the stream by its marker";
"header-damaged" "one of the two headers is damaged; the other one is used" "let the disk's own program open it once, on a copy";
"image-unusable" "the image cannot be opened" "read what it says";
"journal-dirty" "changes in the journal of an seSparse disk are not in its tables" "let an ESXi host open the disk once";
"link-unreadable" "a link of the chain is no disk, or its beginning is damaged" "restore the file";
"log-damaged" "the log of a VHDX cannot be replayed" "restore the file";
"log-not-replayed" "the image was not closed cleanly; its log is replayed while reading" "let the disk's own program open it once, on a copy";
"manifest-incomplete" "a file of the package is not in its manifest: nothing says what it should be" "compare with the source";
"manifest-missing" "the package has no manifest: nothing says what its files should be" "compare with the source";
"manifest-unreadable" "the manifest cannot be read" "fetch the package again";
"marked-corrupt" "the program that wrote the image found it damaged" "qemu-img check on a copy";
"marker-unknown" "a stream has a block of unknown kind" "readers that take it as a stream will stop there";
"member-missing" "a file of the package is missing" "fetch the package again";
"member-unusable" "a disk of the package cannot be opened" "fetch the package again";
"newline-test-missing" "the bytes that show a transfer in text mode are not set" "harmless";
"ntfs-bitmap-damaged" "the map of free clusters cannot be read" "let chkdsk repair the volume in a copy";
"ntfs-bitmap-free" "clusters of files are called free: the guest would write over them" "let chkdsk repair the volume before the guest writes to it";
"ntfs-boot-copy-differs" "the boot sector and its copy differ" "let chkdsk repair the volume in a copy";
"ntfs-clusters-shared" "two files have the same clusters: at most one of them is right" "restore both from another copy";
"ntfs-index-damaged" "a part of a directory cannot be read: the guest misses names; here they come from the files' own records" "let chkdsk repair the volume in a copy";
"ntfs-index-entry-stray" "a directory has a name that no file has: it opens nothing, or another file" "compare the file with another copy";
"ntfs-index-unsorted" "a directory's names are out of order: Windows may not find some; here all are found" "let chkdsk repair the volume in a copy";
"ntfs-links-wrong" "a file counts other names than it has" "let chkdsk repair the volume in a copy";
"ntfs-mirror-damaged" "the copy of the first records cannot be read" "let chkdsk repair the volume in a copy";
"ntfs-mirror-differs" "the first records and their copy differ" "let chkdsk repair the volume in a copy";
"ntfs-name-lost" "a file's name is not in its directory: no path leads to it there" "restore the file from another copy";
"ntfs-record-called-free" "records of files are called free: the guest would give them to other files" "let chkdsk repair the volume before the guest writes to it";
"ntfs-record-damaged" "a file's record, or the list of its clusters, is damaged" "restore the file from another copy";
"ntfs-too-fragmented" "the volume has too many runs to hold them against each other" "nothing";
"package-unusable" "the package cannot be opened" "fetch it again";
"parent-cid-differs" "the parent was changed after this delta was made, or is another disk" "find the right parent; --ignore-cid reads the mixture";
"parent-cid-missing" "the descriptor names a parent and no content id" "--ignore-cid uses the parent that is named";
"parent-length-differs" "the disk and its parent have different lengths" "it is the wrong parent";
"parent-misnamed" "the parent is not where the descriptor says; it was found by its content id" "correct parentFileNameHint";
"parent-missing" "the parent is not there: what the delta does not hold cannot be read" "put it beside its child, or give it with --parent";
"parent-unknown" "which parent is meant cannot be told" "give it with --parent";
"parent-unusable" "the parent cannot be opened" "read what it says";
"partitions-doubtful" "the disk says two things of its partitions: some may be missing" "info shows the table that is believed; if files are missing, look at the other one";
"partitions-lost" "the partition table is damaged: partitions may be missing" "compare it with the machine's; the partitions that are listed can be restored";
"place-in-table" "a place of the disk is stored where the file has a header or a table: one overwrote the other" "restore it from another copy";
"place-shared" "two places of the disk are stored in the same bytes: one overwrote the other" "restore both from another copy";
"range-unreadable" "a range of the disk cannot be read" "restore it from another copy";
"refcount-block-unreadable" "a block of reference counts cannot be read; contents can" "qemu-img check -r all on a copy";
"refcount-too-low" "a cluster in use is counted as free: a program that writes would overwrite it" "do not write to it; convert it";
"refcounts-unchecked" "the image is too large for its reference counts to be checked" "qemu-img check";
"region-table-damaged" "one of the two region tables is damaged; the other one is used" "convert to a new disk";
"region-tables-differ" "the two region tables differ" "convert to a new disk";
"snapshots-unreadable" "the table of snapshots is damaged; the present state can be read" "convert to a new disk";
"space-unreferenced" "the file holds space that nothing refers to: freed, or left by a write that was cut off; where an entry was lost it would look the same" "convert to a new disk to get it back; compare with another copy if something is missing";
"stream-unsorted" "the grains of a stream are not in the order of the disk" "readers that take it as a stream may refuse it";
"stream-unterminated" "a stream does not end with its end marker" "it may have been cut short: compare its length with the source's";
"unclean-shutdown" "the image was not closed by its last writer: it is as a crash left it" "compare it with the source";
"unit-not-decoded" "something compressed is damaged" "restore the range from another copy";
"vmfs-bitmap-damaged" "a bitmap of the datastore is damaged: a host may refuse to write there" "copy what can be read; check it on a host with voma";
"vmfs-bitmap-free" "what a file has is called free: a host would give it to another file" "copy the files before a host writes to the datastore";
"vmfs-blocks-shared" "two files have the same blocks: at most one of them is right" "restore both from another copy";
"vmfs-descriptor-called-free" "a file's descriptor is called free: a host would give it to another file" "copy the file before a host writes to the datastore";
"vmfs-descriptor-damaged" "a file's descriptor, or the list of its blocks, is damaged" "restore the file from another copy";
"vmfs-directory-damaged" "a part of a directory of the datastore is damaged: names may be missing from it" "restore its files from another copy";
"vmfs-entry-stray" "a directory has a name that no file has: it opens nothing, or another file" "compare the file with another copy";
"vmfs-free-count-wrong" "a bitmap counts another number of free blocks than it has" "check it on a host with voma";
"vmfs-heartbeat-damaged" "the slot in which a host shows that it is alive is damaged" "check it on a host with voma";
"vmfs-name-lost" "a file has no name: no path leads to it" "restore it from another copy";
"vmfs-name-misplaced" "a directory's table does not lead to a name: a host may not find it; here it is found" "copy the file; check the datastore on a host with voma";
"vmfs-resource-damaged" "a file of the datastore itself is damaged: other files cannot be read without it" "restore them from another copy";
"vmfs-space-lost" "blocks are in use that no file has: freed, or left by a crash of a host" "harmless";
"volume-not-read" "the file system has something that is not read here: nothing is said of its files" "read what it says";
"volume-unusable" "a guest's volume cannot be opened: none of its files can be restored from here" "restore the disk from another copy";
};

/// What is known of a kind.
pub fn explain(code: &str) -> Option<&'static Explanation> {
    let found = ALL.binary_search_by(|e| e.code.cmp(code)).ok()?;
    ALL.get(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the documentation is this one.
    #[test]
    fn the_docs_have_the_same_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/check.md");
        let docs = std::fs::read_to_string(path).unwrap();
        let rows: Vec<&str> = docs.lines().filter(|l| l.starts_with("| `")).collect();
        let wanted = ALL
            .iter()
            .map(|e| format!("| `{}` | {} | {} |", e.code, e.means, e.todo));
        let wanted: Vec<String> = wanted.collect();
        assert_eq!(rows, wanted, "write this:\n{}", wanted.join("\n"));
    }

    #[test]
    fn sorted_and_said() {
        assert!(ALL.is_sorted_by(|a, b| a.code < b.code));
        for e in ALL {
            assert!(!e.means.is_empty() && !e.todo.is_empty(), "{}", e.code);
            assert_eq!(explain(e.code), Some(e));
        }
    }
}
