from __future__ import annotations

import pytest

from fastindex.formats.names import (
    ARCHITECTURES,
    MICRO_ARCHITECTURES,
    ProductName,
    classify,
    default_aliases,
    find_forbidden_character,
    is_version_name,
    name_published_product,
    to_distribution_architecture,
    version_label,
    version_style,
)


@pytest.mark.parametrize(
    ("name", "kind", "ftype"),
    [
        ("incus.tar.xz", "metadata", "incus.tar.xz"),
        ("incus.tar.gz", "metadata", "incus.tar.xz"),
        ("incus.tar", "metadata", "incus.tar.xz"),
        ("rootfs.tar", "root", "root.tar.xz"),
        ("lxd.tar.xz", "metadata", "lxd.tar.xz"),
        ("lxd.tar.zst", "metadata", "lxd.tar.xz"),
        ("rootfs.squashfs", "root", "squashfs"),
        ("root.squashfs", "root", "squashfs"),
        ("rootfs.tar.xz", "root", "root.tar.xz"),
        ("root.tar.bz2", "root", "root.tar.xz"),
        ("disk.qcow2", "root", "disk-kvm.img"),
        ("disk1.img", "root", "disk1.img"),
        ("uefi1.img", "root", "uefi1.img"),
        ("incus_combined.tar.xz", "unified", "incus_combined.tar.gz"),
        ("lxd_combined.tar.gz", "unified", "lxd_combined.tar.gz"),
        ("rootfs.20240505_05:24.vcdiff", "delta", "squashfs.vcdiff"),
        ("root.20240505_0524.vcdiff", "delta", "squashfs.vcdiff"),
        ("delta-202405050524.vcdiff", "delta", "squashfs.vcdiff"),
        ("disk.20240505.qcow2.vcdiff", "delta", "disk-kvm.img.vcdiff"),
        ("delta-20240505.qcow2.vcdiff", "delta", "disk-kvm.img.vcdiff"),
    ],
)
def test_a_file_name_decides_the_ftype(name: str, kind: str, ftype: str) -> None:
    role = classify(name)
    assert role is not None
    assert (role.kind, role.ftype) == (kind, ftype)


@pytest.mark.parametrize(
    "name",
    [
        "meta.tar.xz",
        "SHA256SUMS",
        "incus.tar.xz.asc",
        "rootfs.squashfs.part",
        "build.log",
        "serial",
        "image.yaml",
        "incus.tar.",
        "incus.tar.7z",
        "incus.tarx",
        "disk.latest.qcow2.vcdiff",
        "rootfs.20240505%41.qcow2.vcdiff",
        "rootfs.latest.vcdiff",
        "rootfs.20240505%41.vcdiff",
        ".incus.tar.xz",
        "INCUS.TAR.XZ",
    ],
)
def test_other_files_have_no_role(name: str) -> None:
    assert classify(name) is None


def test_a_delta_names_its_base() -> None:
    role = classify("rootfs.20240505_05:24.vcdiff")
    assert role is not None
    assert role.delta_base == "20240505_05:24"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("rootfs.squashfs", "root.squashfs"),
        ("rootfs.tar.xz", "root.tar.xz"),
        ("rootfs.tar.xz", "rootfs.tar.gz"),
        ("rootfs.tar.lz4", "root.tar.xz"),
        ("incus.tar.xz", "incus.tar.gz"),
    ],
)
def test_ranks_order_files_of_one_ftype(better: str, worse: str) -> None:
    first, second = classify(better), classify(worse)
    assert first is not None
    assert second is not None
    assert first.ftype == second.ftype
    assert first.rank < second.rank


@pytest.mark.parametrize(
    ("name", "is_good"),
    [
        ("20240505_05:24", True),
        ("20240229", True),
        ("20240505_0524", True),
        ("202405050524", True),
        ("20240505-anything", True),
        ("20230229_00:00", False),  # no leap year
        ("20241301_00:00", False),
        ("00000101_00:00", False),
        ("2024050", False),
        ("latest", False),
        ("٢٠٢٤٠٥٠٥_05:24", False),  # digits, but not ASCII ones
        ("+2024505_05:24", False),
        ("", False),
    ],
)
def test_a_version_name_starts_with_a_real_date(name: str, is_good: bool) -> None:
    assert is_version_name(name) is is_good


def test_styles_of_version_names_differ_by_their_shape() -> None:
    assert version_style("20240505_05:24") == version_style("19991231_23:59")
    assert version_style("20240505_05:24") != version_style("20240505_0524")


@pytest.mark.parametrize("char", [",", "%", "\n", "\x1b", "\x7f", "\x85", "\udcff"])
def test_characters_that_break_paths_and_aliases_are_found(char: str) -> None:
    assert find_forbidden_character(f"a{char}b") == char


@pytest.mark.parametrize("name", ["Ünïcode OS", "24.04", "a+b", "日本", "x:y", "a.b_c-d~1"])
def test_other_characters_are_fit(name: str) -> None:
    assert find_forbidden_character(name) is None


def test_architectures_are_case_sensitive_and_canonical() -> None:
    assert ARCHITECTURES["amd64"] == ARCHITECTURES["x86_64"] == "x86_64"
    assert ARCHITECTURES["armhf"] == "armv7l"
    assert "AMD64" not in ARCHITECTURES
    assert len(set(ARCHITECTURES.values())) == 15


def test_default_aliases() -> None:
    both = ["debian/12/default", "debian/12"]
    assert default_aliases("debian", "12", "amd64", "default") == both
    assert default_aliases("debian", "12", "amd64", "cloud") == ["debian/12/cloud"]


@pytest.mark.parametrize(
    ("kernel", "distribution"),
    [
        ("x86_64", "amd64"),
        ("aarch64", "arm64"),
        ("armv7l", "armhf"),
        ("armv6l", "armel"),
        ("i686", "i386"),
        ("ppc64le", "ppc64el"),
        ("riscv64", "riscv64"),
        ("s390x", "s390x"),
        ("amd64", "amd64"),
        ("pdp11", "pdp11"),
    ],
)
def test_kernel_architectures_become_distribution_names(kernel: str, distribution: str) -> None:
    assert to_distribution_architecture(kernel) == distribution
    assert ARCHITECTURES.get(distribution) == ARCHITECTURES.get(kernel)


@pytest.mark.parametrize("arch", sorted(MICRO_ARCHITECTURES))
def test_a_micro_architecture_is_known_and_has_aliases_of_its_own(arch: str) -> None:
    assert ARCHITECTURES[arch] == "x86_64"
    both = [f"debian/12/default/{arch}", f"debian/12/{arch}"]
    assert ProductName("debian", "12", arch, "default").default_aliases == both
    assert default_aliases("void", "current", arch, "musl") == [
        f"void/current/musl/{arch}",
        f"void/musl/{arch}",
    ]


@pytest.mark.parametrize(
    ("key", "os_name"),
    [
        ("debian:12:amd64:default", "debian"),  # the directory's name, not what people write
        ("debian:12:default:amd64", "Debian"),
        ("com.example:debian", "Debian"),
        ("debian:13:amd64:default", "Debian"),
        ("", "Debian"),
    ],
)
def test_a_published_product_is_named_by_its_directories_or_its_fields(
    key: str, os_name: str
) -> None:
    name = name_published_product(key, "Debian", "12", "amd64", "default")
    assert name == ProductName(os_name, "12", "amd64", "default")


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("debian:12:amd64:default", "images/debian/12/amd64/default/20240505"),
        ("debian:12:default:amd64", "images/debian:12:default:amd64/20240505"),
        ("com.example:x", "images/com.example:x/20240505"),
    ],
)
def test_a_version_is_labelled_by_its_directories_or_its_key(key: str, label: str) -> None:
    assert version_label("images", key, "20240505") == label
