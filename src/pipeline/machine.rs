//! What this machine has for jobs: memory, as far as a control group lets us have it, and the disk of `TMPDIR`.

use std::fs;
use std::io;
use std::path::{Component, Path};

use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FUSE_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC,
    statfs,
};
use nix::sys::statvfs::statvfs;

/// linux/magic.h; `ramfs` has no other bound than memory, and tells of none.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// Where control groups are mounted: version 2 alone, version 2 beside version 1, and version 1.
const GROUPS: [(&str, Version); 3] = [
    ("sys/fs/cgroup", Version::Two),
    ("sys/fs/cgroup/unified", Version::Two),
    ("sys/fs/cgroup/memory", Version::One),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Bytes of memory that this process and its children may have together: the least of the machine's and of what its
/// control group and those above it allow. `root` is `/`.
///
/// # Errors
/// `/proc/meminfo` cannot be read.
pub(super) fn memory(root: &Path) -> io::Result<u64> {
    let total = fs::read_to_string(root.join("proc/meminfo"))?
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?
        .saturating_mul(1024);
    // Without control groups there is no such file.
    let memberships = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = memberships.lines().filter_map(|line| {
        let (version, path) = membership(line)?;
        let mounts = GROUPS.iter().filter(move |(_, of)| *of == version);
        mounts
            .filter_map(|(mount, _)| limit(&root.join(mount), path, version))
            .min()
    });
    Ok(limits.min().map_or(total, |limit| limit.min(total)))
}

/// A line of `/proc/self/cgroup` that is about memory: `0::/a/b`, or `4:memory:/a/b`.
fn membership(line: &str) -> Option<(Version, &str)> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    if number == "0" && controllers.is_empty() {
        return Some((Version::Two, path));
    }
    let of_memory = controllers.split(',').any(|controller| controller == "memory");
    of_memory.then_some((Version::One, path))
}

/// The least limit of a group and of those that it is in. In a container the path may be the host's, of which nothing is
/// to be seen here: then what counts is the group that is mounted, the container's own.
fn limit(mount: &Path, path: &str, version: Version) -> Option<u64> {
    let file = match version {
        Version::One => "memory.limit_in_bytes",
        Version::Two => "memory.max",
    };
    let relative: Vec<_> = Path::new(path)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    (0..=relative.len())
        .filter_map(|depth| {
            let group = mount.join(relative[..depth].iter().collect::<std::path::PathBuf>());
            // `max` is no number.
            fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok()
        })
        .min()
}

/// Whether files in this directory are memory.
///
/// On Cloud Run the container's own file system is: what it says it is (an overlay, gVisor's) differs between execution
/// environments, so there only what is known to be mounted from elsewhere is a disk.
///
/// # Errors
/// The directory is not there.
pub(super) fn is_memory(directory: &Path, on_cloud_run: bool) -> io::Result<bool> {
    let kind = statfs(directory)?.filesystem_type();
    let disks = [
        EXT4_SUPER_MAGIC,
        XFS_SUPER_MAGIC,
        BTRFS_SUPER_MAGIC,
        NFS_SUPER_MAGIC,
        FUSE_SUPER_MAGIC,
    ];
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC || (on_cloud_run && !disks.contains(&kind)))
}

/// Bytes that a job may still write there; none where the file system does not count.
///
/// # Errors
/// The directory is not there.
pub(super) fn room(directory: &Path) -> io::Result<Option<u64>> {
    let counted = statvfs(directory)?;
    // What is kept for root is of no use to a job's user.
    let room = counted.blocks_available().saturating_mul(counted.fragment_size());
    Ok((counted.blocks() > 0).then_some(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       2048 kB\nMemFree:        1 kB\n";

    fn memory_of(files: &[(&str, &str)]) -> io::Result<u64> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        memory(root.path())
    }

    #[test]
    fn without_a_group_the_machines_memory_counts() {
        assert_eq!(memory_of(&[("proc/meminfo", MEMINFO)]).unwrap(), 2 << 20);
        assert!(memory_of(&[("proc/meminfo", "MemFree: 1 kB\n")]).is_err());
        assert!(memory_of(&[]).is_err());
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let (group, top) = ("sys/fs/cgroup/pod/worker/memory.max", "sys/fs/cgroup/pod/memory.max");
        let of = |own: &str, above: &str| {
            memory_of(&[
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", "0::/pod/worker\n"),
                (group, own),
                (top, above),
            ])
            .unwrap()
        };
        assert_eq!(of("1000000\n", "max\n"), 1_000_000);
        assert_eq!(of("max\n", "900000\n"), 900_000);
        assert_eq!(of("800000\n", "900000\n"), 800_000);
        assert_eq!(of("9000000\n", "max\n"), 2 << 20, "more than there is is no limit");
        assert_eq!(of("max\n", "max\n"), 2 << 20);
    }

    #[test]
    fn version_one_is_read_beside_version_two() {
        // Without a limit it is the largest number of pages, in bytes.
        let unlimited = "9223372036854771712\n";
        let memberships = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n";
        let of = |own: &str, top: &str| {
            memory_of(&[
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", memberships),
                ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", own),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", top),
                ("sys/fs/cgroup/unified/memory.max", "max\n"),
            ])
            .unwrap()
        };
        assert_eq!(of("700000\n", unlimited), 700_000);
        assert_eq!(of(unlimited, unlimited), 2 << 20);
    }

    #[test]
    fn a_path_of_the_host_leads_to_the_mounted_group() {
        for (membership, limit) in [
            ("0::/system.slice/docker-1.scope\n", "sys/fs/cgroup/memory.max"),
            ("0::/../../pod\n", "sys/fs/cgroup/memory.max"),
            ("4:memory:/docker/1\n", "sys/fs/cgroup/memory/memory.limit_in_bytes"),
        ] {
            let files = [
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", membership),
                (limit, "500000\n"),
            ];
            assert_eq!(memory_of(&files).unwrap(), 500_000, "{membership}");
        }
        let files = [("proc/meminfo", MEMINFO), ("proc/self/cgroup", "4:cpu:/a\nnonsense\n")];
        assert_eq!(memory_of(&files).unwrap(), 2 << 20, "no line is about memory");
    }

    #[test]
    fn a_tmpfs_is_memory_and_a_directory_of_nowhere_is_an_error() {
        // Every Linux has one for POSIX shared memory.
        assert!(is_memory(Path::new("/dev/shm"), false).unwrap());
        assert!(room(Path::new("/dev/shm")).unwrap().is_some_and(|room| room > 0));
        assert_eq!(room(Path::new("/proc")).unwrap(), None, "it does not count");
        // Neither a tmpfs nor known as a disk: in doubt it is memory, but only on Cloud Run.
        assert!(!is_memory(Path::new("/proc"), false).unwrap());
        assert!(is_memory(Path::new("/proc"), true).unwrap());
        assert!(is_memory(Path::new("/nowhere"), false).is_err() && room(Path::new("/nowhere")).is_err());
    }
}
