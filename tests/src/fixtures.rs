//! Images made by real tools.
