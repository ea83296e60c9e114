//! A chain of clusters as runs. Computed once, then any offset is found by bisection.

use disk_io::{DiskError, Result};

/// What an allocation table says of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is free.
    Free,
    /// This one follows.
    Next(u32),
    /// It is the last.
    End,
    /// It is marked as bad.
    Bad,
    /// A number that is no cluster of the volume.
    Outside(u32),
}

/// An allocation table to walk.
pub trait Links {
    /// What follows a cluster.
    fn next(&self, cluster: u32) -> Result<Link>;
    /// Number of clusters: valid ones are 2 to this plus 1.
    fn clusters(&self) -> u32;
}

/// How many clusters a chain should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// As many as the file's size needs.
    Exactly(u32),
    /// All of them, but no more than this: a directory.
    ToEnd(u32),
}

impl Wanted {
    /// A number of its own for each, to cache by.
    pub fn key(self) -> u64 {
        match self {
            Self::Exactly(n) => u64::from(n),
            Self::ToEnd(n) => u64::from(n) | 1 << 32,
        }
    }
}

/// Clusters that follow each other on the volume too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which cluster of the file is its first.
    pub at: u32,
    /// Which cluster of the volume that is.
    pub first: u32,
}

/// The clusters of a file, in order.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    pieces: Vec<Piece>,
    clusters: u32,
    broken: Option<DiskError>,
    odd: Option<String>,
    remark: Option<String>,
    differs: Option<String>,
}

impl Chain {
    /// A chain without a table: `clusters` from `first` on (exFAT's NoFatChain).
    pub fn contiguous(first: u32, clusters: u32, of: u32) -> Self {
        let last = u64::from(first).saturating_add(u64::from(clusters));
        if clusters == 0 {
            return Self::default();
        }
        if first < 2 || last > u64::from(of).saturating_add(2) {
            return Self::at_fault(DiskError::corrupt("following clusters").found(format!(
                "{clusters} clusters from {first} on, of {of} that the volume has"
            )));
        }
        Self {
            pieces: vec![Piece { at: 0, first }],
            clusters,
            ..Self::default()
        }
    }

    fn at_fault(e: DiskError) -> Self {
        Self {
            broken: Some(e),
            ..Self::default()
        }
    }

    /// Follows `links` from `first` on. A break ends the chain and is remembered; so does
    /// coming back to a cluster of the chain.
    pub fn walk(links: &dyn Links, first: u32, wanted: Wanted) -> Self {
        let (most, to_end) = match wanted {
            Wanted::Exactly(n) => (n, false),
            Wanted::ToEnd(n) => (n, true),
        };
        let mut chain = Self::default();
        if most == 0 {
            if first != 0 {
                chain.odd = Some(format!("an empty file has the cluster {first}"));
            }
            return chain;
        }
        let last = links.clusters().saturating_add(1);
        if first < 2 || first > last {
            return Self::at_fault(
                DiskError::corrupt("following a chain of clusters")
                    .expected(format!("a first cluster of 2 to {last}"))
                    .found(first.to_string()),
            );
        }
        // Brent's way to notice a loop: one mark, moved ever more rarely.
        let (mut mark, mut steps, mut until) = (first, 0u32, 1u32);
        let mut cluster = first;
        loop {
            chain.push(cluster);
            let full = chain.clusters >= most;
            let next = match links.next(cluster) {
                Ok(Link::Next(next)) if full && !to_end => {
                    chain.odd = Some(format!(
                        "its chain goes on with cluster {next} after the last one that its size needs"
                    ));
                    return chain;
                }
                Ok(Link::Next(next)) if !full => next,
                Ok(Link::Next(_)) => {
                    chain.broken = Some(
                        DiskError::refused("following a chain of clusters")
                            .expected(format!("at most {most} clusters in a directory"))
                            .found("more"),
                    );
                    return chain;
                }
                Ok(Link::End) if full || to_end => return chain,
                Ok(link) if full => {
                    chain.odd = Some(format!(
                        "its last cluster {cluster} is not marked as the last but {}",
                        describe(link)
                    ));
                    return chain;
                }
                Ok(link) => {
                    let mut e = DiskError::corrupt("following a chain of clusters")
                        .found(format!("cluster {cluster} {}", describe(link)));
                    e = if to_end {
                        e.expected("a cluster or the end")
                    } else {
                        e.expected(format!(
                            "a chain of {most} clusters, of which {} are there",
                            chain.clusters
                        ))
                    };
                    chain.broken = Some(e);
                    return chain;
                }
                Err(e) => {
                    chain.broken = Some(e);
                    return chain;
                }
            };
            steps = steps.saturating_add(1);
            if next == mark {
                chain.cut_loop(links, first, steps);
                return chain;
            }
            if steps == until {
                (mark, steps, until) = (next, 0, until.saturating_mul(2));
            }
            cluster = next;
        }
    }

    fn push(&mut self, cluster: u32) {
        let goes_on = self.pieces.last().is_some_and(|p| {
            let n = self.clusters.saturating_sub(p.at);
            p.first.checked_add(n) == Some(cluster)
        });
        if !goes_on {
            self.pieces.push(Piece {
                at: self.clusters,
                first: cluster,
            });
        }
        self.clusters = self.clusters.saturating_add(1);
    }

    /// Keeps each cluster of a loop of `period` clusters once.
    fn cut_loop(&mut self, links: &dyn Links, first: u32, period: u32) {
        let step = |cluster: u32| match links.next(cluster) {
            Ok(Link::Next(next)) => next,
            _ => cluster,
        };
        let mut ahead = first;
        for _ in 0..period {
            ahead = step(ahead);
        }
        let (mut behind, mut before) = (first, 0u32);
        while behind != ahead && before < self.clusters {
            behind = step(behind);
            ahead = step(ahead);
            before = before.saturating_add(1);
        }
        let keep = before.saturating_add(period).min(self.clusters);
        self.pieces.retain(|p| p.at < keep);
        self.clusters = keep;
        self.broken = Some(
            DiskError::corrupt("following a chain of clusters")
                .expected("every cluster once")
                .found(format!(
                    "a loop back to cluster {behind} after {keep} clusters"
                )),
        );
    }

    /// Number of clusters that are there.
    pub fn clusters(&self) -> u32 {
        self.clusters
    }

    /// Why the chain ends before it should.
    pub fn broken(&self) -> Option<&DiskError> {
        self.broken.as_ref()
    }

    /// Whether something about it is not as it should be although all clusters are there.
    pub fn is_odd(&self) -> bool {
        self.odd.is_some()
    }

    /// Adds a remark.
    pub fn remark(&mut self, remark: String) {
        self.remark = Some(remark);
    }

    /// Notes that another copy of the table leads elsewhere.
    pub fn differs(&mut self, remark: String) {
        self.differs = Some(remark);
    }

    /// Everything to say about it, but for what comes of comparing the copies of the table.
    pub fn remarks(&self) -> Vec<String> {
        let broken = self.broken.as_ref().map(ToString::to_string);
        [broken, self.odd.clone(), self.remark.clone()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Why its clusters may not be those of the file. On a volume that was not closed, not that
    /// it has more than the size needs: the size of a file that grows is written last.
    pub fn doubts(&self, closed: bool) -> Vec<String> {
        let odd = self.odd.as_ref().filter(|_| closed);
        [odd, self.remark.as_ref(), self.differs.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Whether `other`'s clusters are this one's first.
    pub fn begins_with(&self, other: &Self) -> bool {
        other.clusters <= self.clusters
            && other.pieces.iter().enumerate().all(|(n, p)| {
                let end = other.end(n);
                self.place(p.at) == Some((p.first, self.run(p.at)))
                    && self.run(p.at) >= end.saturating_sub(p.at)
            })
    }

    fn end(&self, piece: usize) -> u32 {
        self.pieces
            .get(piece.saturating_add(1))
            .map_or(self.clusters, |next| next.at)
    }

    fn run(&self, at: u32) -> u32 {
        self.place(at).map_or(0, |(_, n)| n)
    }

    /// Where cluster `at` of the file is: its number, and how many follow it in one run,
    /// itself included.
    pub fn place(&self, at: u32) -> Option<(u32, u32)> {
        if at >= self.clusters {
            return None;
        }
        let n = self.pieces.partition_point(|p| p.at <= at).checked_sub(1)?;
        let piece = self.pieces.get(n)?;
        let skip = at.checked_sub(piece.at)?;
        Some((piece.first.checked_add(skip)?, self.end(n).checked_sub(at)?))
    }

    /// Runs of clusters that follow each other: the first and how many.
    pub fn pieces(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let all = self.pieces.iter().enumerate();
        all.map(|(n, p)| (p.first, self.end(n).saturating_sub(p.at)))
    }

    /// Every cluster in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.clusters).filter_map(|at| Some(self.place(at)?.0))
    }

    /// Memory it takes, in bytes.
    pub fn weight(&self) -> u64 {
        (self.pieces.len() as u64)
            .saturating_mul(8)
            .saturating_add(200)
    }
}

fn describe(link: Link) -> String {
    match link {
        Link::Free => "is marked as free".into(),
        Link::Next(n) => format!("is followed by {n}"),
        Link::End => "is the last".into(),
        Link::Bad => "is marked as bad".into(),
        Link::Outside(n) => format!("is followed by {n}, which the volume does not have"),
    }
}
