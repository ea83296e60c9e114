//! Files and trees out of a guest file system.
