//! Where everything goes, before anything is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::names::{self, RECORD};
use super::{
    Disk, Fault, Kind, MAX_BYTES, MAX_DIR_RECORDS, MAX_FILE_BYTES, Problem, SECTOR, Tree,
    Unstorable,
};

/// What a file system is told apart by: the number of clusters and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FatKind {
    /// 12 bits for a cluster.
    Fat12,
    /// 16 bits for a cluster.
    Fat16,
    /// 32 bits for a cluster, of which 28 are used; the root is a chain like any directory.
    Fat32,
}

impl FatKind {
    /// The greatest number of clusters (specification, "FAT Type Determination"; Linux'
    /// `MAX_FAT12`, `MAX_FAT16`, `MAX_FAT32` less the two entries that stand for no cluster).
    const fn max_clusters(self) -> u64 {
        match self {
            FatKind::Fat12 => 4_084,
            FatKind::Fat16 => 65_524,
            FatKind::Fat32 => 0x0fff_fff4,
        }
    }

    /// Size of a FAT entry.
    pub(super) const fn bits(self) -> u64 {
        match self {
            FatKind::Fat12 => 12,
            FatKind::Fat16 => 16,
            FatKind::Fat32 => 32,
        }
    }
}

/// Drivers disagree by a few clusters about where one kind ends; so says the specification, and
/// advises to stay 16 away from the bounds.
const MARGIN: u64 = 16;

/// Where the partition begins: 1 MiB, as every partitioning program has it.
const PARTITION_START: u64 = (1 << 20) / SECTOR;

/// The smallest clusters have the size of a page: the guest then reads whole pages, and nothing of
/// two files shares one. Smaller ones would save space, but need more entries to follow.
const MIN_CLUSTER_SECTORS: u64 = 8;
/// 32 KiB, the greatest the specification allows.
const MAX_CLUSTER_SECTORS: u64 = 64;
/// Clusters are made larger where more of them would be needed: their table has 8 MiB then.
const MANY_CLUSTERS: u64 = 1 << 21;

/// Entries of the root directory of FAT12 and FAT16, at least: what mkfs.fat takes.
const MIN_ROOT_RECORDS: u64 = 512;
/// And at most: the number is stored in 16 bits and must fill sectors.
const MAX_ROOT_RECORDS: u64 = 65_520;

/// The sizes of all parts of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) kind: FatKind,
    /// Sectors of the disk before the file system.
    pub(super) hidden: u64,
    pub(super) cluster_sectors: u64,
    pub(super) reserved_sectors: u64,
    /// Of one of the two FATs.
    pub(super) fat_sectors: u64,
    /// Records of the root directory; 0 on FAT32.
    pub(super) root_records: u64,
    pub(super) clusters: u64,
}

impl Geometry {
    /// For a file system of at least `clusters` clusters and a root directory of `root_records`.
    fn new(disk: Disk, cluster_sectors: u64, clusters: u64, root_records: u64) -> Geometry {
        let root_clusters = (root_records * RECORD as u64).div_ceil(cluster_sectors * SECTOR);
        let small_root = root_records <= MAX_ROOT_RECORDS;
        let (kind, clusters) = if clusters <= FatKind::Fat12.max_clusters() - MARGIN && small_root {
            // A file system without clusters is odd.
            (FatKind::Fat12, clusters.max(1))
        } else if clusters <= FatKind::Fat16.max_clusters() - MARGIN && small_root {
            (FatKind::Fat16, clusters.max(FatKind::Fat12.max_clusters() + 1 + MARGIN))
        } else {
            let least = FatKind::Fat16.max_clusters() + 1 + MARGIN;
            (FatKind::Fat32, (clusters + root_clusters).max(least))
        };
        // Everything in front of the clusters fills whole clusters, so that they are aligned.
        let align = |sectors: u64| sectors.next_multiple_of(cluster_sectors);
        Geometry {
            kind,
            hidden: match disk {
                Disk::Partitioned => PARTITION_START,
                Disk::Whole => 0,
            },
            cluster_sectors,
            reserved_sectors: match kind {
                FatKind::Fat12 | FatKind::Fat16 => align(1),
                FatKind::Fat32 => align(32), // what mkfs.fat takes; 8 are used
            },
            fat_sectors: align(((clusters + 2) * kind.bits()).div_ceil(8).div_ceil(SECTOR)),
            root_records: match kind {
                FatKind::Fat12 | FatKind::Fat16 => {
                    let sectors = align(root_records.max(MIN_ROOT_RECORDS).div_ceil(16));
                    (sectors * 16).min(MAX_ROOT_RECORDS)
                }
                FatKind::Fat32 => 0,
            },
            clusters,
        }
    }

    pub(super) fn cluster_bytes(&self) -> u64 {
        self.cluster_sectors * SECTOR
    }

    /// Sectors of the file system.
    pub(super) fn volume_sectors(&self) -> u64 {
        let root_sectors = self.root_records * RECORD as u64 / SECTOR;
        self.reserved_sectors
            + 2 * self.fat_sectors
            + root_sectors
            + self.clusters * self.cluster_sectors
    }

    /// Sectors of the image.
    pub(super) fn disk_sectors(&self) -> u64 {
        self.hidden + self.volume_sectors()
    }

    /// How many clusters so many bytes take.
    fn clusters_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_bytes())
    }
}

/// A tree with a place foreverything in it, ready to be written.
#[derive(Clone, Debug)]
pub struct Image<B> {
    pub(super) tree: Tree<B>,
    pub(super) geometry: Geometry,
    /// All nodes, parents before their children, siblings sorted by the bytes of their names: the
    /// order in which files lie in the image.
    pub(super) order: Vec<u32>,
    /// The children of each node.
    pub(super) children: Children,
    /// Each node's place, by number of node.
    pub(super) places: Vec<Place>,
}

/// Where the bytes of a node lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The first cluster, 2 or more; 0 for what takes none.
    pub(super) first: u32,
    /// How many there are; they are adjacent.
    pub(super) count: u32,
}

/// The children of every node, sorted by name.
#[derive(Clone, Debug)]
pub(super) struct Children {
    /// Nodes, those with the same parent side by side.
    nodes: Vec<u32>,
    /// Where the children of a node end; they begin where those of the node before end.
    ends: Vec<u32>,
}

impl Children {
    fn new<B>(tree: &Tree<B>) -> Children {
        let mut ends = vec![0; tree.nodes.len()];
        for node in &tree.nodes[1..] {
            ends[node.parent as usize] += 1;
        }
        let mut next = Vec::with_capacity(ends.len());
        let mut end = 0;
        for count in &mut ends {
            next.push(end);
            end += *count;
            *count = end;
        }
        let mut nodes = vec![0; tree.nodes.len() - 1];
        for (i, node) in (1..).zip(&tree.nodes[1..]) {
            let at = &mut next[node.parent as usize];
            nodes[*at as usize] = i;
            *at += 1;
        }
        let mut children = Children { nodes, ends };
        for dir in 0..tree.nodes.len() {
            let (start, end) = children.range(dir as u32);
            children.nodes[start..end].sort_unstable_by_key(|node| {
                // Equal names are an error later; which one it is about must not depend on luck.
                (&tree.nodes[*node as usize].name, *node)
            });
        }
        children
    }

    fn range(&self, dir: u32) -> (usize, usize) {
        let start = if dir == 0 { 0 } else { self.ends[dir as usize - 1] };
        (start as usize, self.ends[dir as usize] as usize)
    }

    pub(super) fn of(&self, dir: u32) -> &[u32] {
        let (start, end) = self.range(dir);
        &self.nodes[start..end]
    }
}

impl<B> Image<B> {
    /// Lays a tree out.
    ///
    /// # Errors
    /// [`Unstorable`] with everything that does not fit, when anything does not.
    pub fn plan(tree: Tree<B>, disk: Disk) -> Result<Image<B>, Unstorable> {
        let children = Children::new(&tree);
        let (records, mut problems) = check(&tree, &children);

        let bytes = |node: usize| match tree.nodes[node].kind {
            Kind::File { size, .. } => size,
            Kind::Dir => records[node] * RECORD as u64,
        };
        // The root is counted apart, since on FAT12 and FAT16 it takes no clusters.
        let total_clusters = |cluster_sectors: u64| {
            (1..tree.nodes.len())
                .map(|node| bytes(node).div_ceil(cluster_sectors * SECTOR))
                .fold(0, u64::saturating_add)
        };
        let mut cluster_sectors = MIN_CLUSTER_SECTORS;
        let mut clusters = total_clusters(cluster_sectors);
        while clusters > MANY_CLUSTERS && cluster_sectors < MAX_CLUSTER_SECTORS {
            cluster_sectors *= 2;
            clusters = total_clusters(cluster_sectors);
        }
        // Far below overflow, far above what fits.
        let clusters = clusters.min(1 << 40);
        let geometry = Geometry::new(disk, cluster_sectors, clusters, records[0]);
        let total = geometry.disk_sectors() * SECTOR;
        if total > MAX_BYTES || geometry.clusters > FatKind::Fat32.max_clusters() {
            problems.push(Problem { path: Vec::new(), fault: Fault::TotalTooLarge(total) });
        }
        if !problems.is_empty() {
            problems.sort_by(|a, b| a.path.cmp(&b.path));
            return Err(Unstorable { problems });
        }

        let order = walk(&tree, &children);
        let mut places = vec![Place::default(); tree.nodes.len()];
        let mut next = 2;
        // Directories lie together in front: listing a tree reads one place of the disk.
        for dirs in [true, false] {
            for &node in &order {
                let is_dir = matches!(tree.nodes[node as usize].kind, Kind::Dir);
                if is_dir != dirs || (node == 0 && geometry.kind != FatKind::Fat32) {
                    continue;
                }
                let count = geometry.clusters_of(bytes(node as usize)) as u32;
                let first = if count == 0 { 0 } else { next };
                places[node as usize] = Place { first, count };
                next += count;
            }
        }
        Ok(Image { tree, geometry, order, children, places })
    }

    /// The size of the image in bytes.
    pub fn bytes(&self) -> u64 {
        self.geometry.disk_sectors() * SECTOR
    }

    /// All files with their paths below the root, in the order in which they will be written.
    pub fn files(&self) -> impl Iterator<Item = (Vec<u8>, &B)> {
        self.order.iter().filter_map(|node| match &self.tree.nodes[*node as usize].kind {
            Kind::File { body, .. } => Some((self.tree.path(*node), body)),
            Kind::Dir => None,
        })
    }

    /// The kind of file system that was chosen.
    pub fn kind(&self) -> FatKind {
        self.geometry.kind
    }
}

/// All nodes in the order of their paths. Without recursion: trees may be deep.
fn walk<B>(tree: &Tree<B>, children: &Children) -> Vec<u32> {
    let mut order = Vec::with_capacity(tree.nodes.len());
    let mut pending = vec![0];
    while let Some(node) = pending.pop() {
        order.push(node);
        pending.extend(children.of(node).iter().rev());
    }
    order
}

/// The number of records of each directory (0 for files), and all that is wrong with names and
/// sizes.
fn check<B>(tree: &Tree<B>, children: &Children) -> (Vec<u64>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut problem = |node: u32, fault| problems.push(Problem { path: tree.path(node), fault });
    let mut all_records = vec![0; tree.nodes.len()];
    let mut seen: HashMap<String, u32> = HashMap::new();
    for (dir, node) in (0..).zip(&tree.nodes) {
        match node.kind {
            Kind::Dir => {}
            Kind::File { size, .. } => {
                if size > MAX_FILE_BYTES {
                    problem(dir, Fault::FileTooLarge(size));
                }
                continue;
            }
        }
        // The root begins with the volume's label, all others with `.` and `..`.
        let mut records = if dir == 0 { 1 } else { 2 };
        seen.clear();
        for &child in children.of(dir) {
            match names::check(&tree.nodes[child as usize].name) {
                Ok(name) => {
                    records += names::records(name);
                    match seen.entry(names::folded(name)) {
                        Entry::Vacant(free) => {
                            free.insert(child);
                        }
                        Entry::Occupied(first) => {
                            problem(child, Fault::SameName(tree.path(*first.get())));
                        }
                    }
                }
                Err(fault) => problem(child, fault),
            }
        }
        if records > MAX_DIR_RECORDS {
            let entries = children.of(dir).len() as u64;
            problem(dir, Fault::DirTooLarge { entries, records, limit: MAX_DIR_RECORDS });
        }
        all_records[dir as usize] = records;
    }
    (all_records, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::fat::DirId;

    fn kinds(clusters: u64) -> (FatKind, u64) {
        let geometry = Geometry::new(Disk::Whole, 8, clusters, 1);
        assert!(geometry.clusters >= clusters);
        (geometry.kind, geometry.clusters)
    }

    #[test]
    fn the_kind_follows_from_the_number_of_clusters_and_keeps_away_from_the_bounds() {
        assert_eq!(kinds(0), (FatKind::Fat12, 1));
        assert_eq!(kinds(4_068), (FatKind::Fat12, 4_068));
        assert_eq!(kinds(4_069), (FatKind::Fat16, 4_101));
        assert_eq!(kinds(4_102), (FatKind::Fat16, 4_102));
        assert_eq!(kinds(65_508), (FatKind::Fat16, 65_508));
        assert_eq!(kinds(65_509), (FatKind::Fat32, 65_541));
        assert_eq!(kinds(100_000), (FatKind::Fat32, 100_001));
    }

    #[test]
    fn tables_hold_all_clusters_and_everything_is_aligned() {
        for cluster_sectors in [8, 16, 32, 64] {
            for clusters in [1, 339, 340, 341, 4_068, 4_069, 65_508, 65_509, 1 << 21, 0x0fff_0000] {
                for root_records in [1, 512, 513, 65_520, 65_521] {
                    let g =
                        Geometry::new(Disk::Partitioned, cluster_sectors, clusters, root_records);
                    assert!(g.fat_sectors * SECTOR * 8 >= (g.clusters + 2) * g.kind.bits());
                    assert!(g.kind == FatKind::Fat32 || g.root_records >= root_records);
                    assert!(g.clusters <= g.kind.max_clusters());
                    let front = g.volume_sectors() - g.clusters * cluster_sectors;
                    if g.root_records != MAX_ROOT_RECORDS {
                        assert_eq!(front % cluster_sectors, 0, "{g:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn huge_trees_get_larger_clusters_and_then_an_error() {
        let tree = |files: u64| {
            let mut tree = Tree::new();
            for i in 0..files {
                tree.add_file(DirId::ROOT, i.to_string(), 0, MAX_FILE_BYTES, ());
            }
            Image::plan(tree, Disk::Partitioned)
        };
        assert_eq!(tree(2).unwrap().geometry.cluster_bytes(), 4 << 10);
        assert_eq!(tree(3).unwrap().geometry.cluster_bytes(), 8 << 10);
        assert_eq!(tree(100).unwrap().geometry.cluster_bytes(), 32 << 10);
        let most = tree(511).unwrap();
        assert_eq!(most.kind(), FatKind::Fat32);
        assert!(most.bytes() < MAX_BYTES);
        let err = tree(512).unwrap_err();
        assert!(
            err.to_string().starts_with("cannot be stored on vfat: the tree needs 2199"),
            "{err}"
        );

        // Sizes that would overflow are errors too.
        let mut tree = Tree::new();
        for name in ["a", "b"] {
            tree.add_file(DirId::ROOT, name, 0, u64::MAX, ());
        }
        assert_eq!(Image::plan(tree, Disk::Whole).unwrap_err().problems.len(), 3);
    }
}
