//! vmdkit against real images and other tools: one binary, a module per theme.
//!
//! | module | shows |
//! |---|---|
//! | `layering` | dependencies point one way, lints hold |
//! | `images` | every real VMDK gives its recorded contents or the right named error |
//! | `guests` | every file of every NTFS and FAT volume, against The Sleuth Kit and the fixtures' truth |
//! | `oracles` | the crates `ntfs` and `fatfs` as second readers, and their known faults |
//! | `three_ways` | `ls`, `cp` and the mount give the same tree |
//! | `hostile` | descriptors that ask for what they may not have are refused at once, with a reason |
//! | `twice` | two things of one name, one directory under several: told, and each is taken once |
//! | `find` | one scan of a volume's tables lists what a walk lists |
//! | `formats` | what is written is read by qemu-img, 7-Zip, libvmdk and libvhdi |
//! | `lost_names` | restores out of damaged directories of NTFS have every file |
//! | `restores` | what a restore keeps beside the bytes, read back by other tools |
//! | `used` | `convert --used-only` keeps every file |
//! | `letters` | drive letters from a registry, and VCB's layout |
//! | `devices` | `convert --device` onto a loop device |
//! | `vcb` | a script for VMware Consolidated Backup |
//! | `drill` | a disk of our own starts |
//! | `hooks` | the examples of docs/hooks |
//! | `resume`, `replicas` | what is killed at any moment is gone on with |
//! | `crash` | full disks, failing disks and losses of power at every operation of every writer |
//! | `shared_blocks` | copies on file systems that share blocks |
//! | `damages` | planted damage of every format is found, named, placed and mapped to guest files |
//! | `embedded` | holes in descriptors inside sparse disks give the disk or an error |
//! | `volumes` | planted damage in volumes is found, and none in sound ones |
//! | `repairs` | mended images, read by qemu-img |
//! | `rules` | what went wrong in other programs, and what a safe reader must keep: a test by name for each |
//! | `chains` | deep and mixed chains, against qemu-img |
//! | `one_bit` | every bit of the heads of images: the same disk, an error, or a word |
//! | `mutants` | a few damaged images of every kind, each outcome with its reason |
//! | `stress` | many readers of a mount at once, and what ends them: no wrong byte, no hang, nothing left |
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod chains;
mod crash;
mod damages;
mod day;
mod devices;
mod drill;
mod embedded;
mod find;
mod formats;
mod guests;
mod hooks;
mod hostile;
mod images;
mod layering;
mod letters;
mod lost_names;
mod mutants;
mod one_bit;
mod oracles;
mod repairs;
mod replicas;
mod restores;
mod resume;
mod rules;
mod shared_blocks;
mod sound;
mod story;
mod stress;
mod supply;
mod three_ways;
mod tsk;
mod twice;
mod used;
mod vcb;
mod volumes;
mod walk;
