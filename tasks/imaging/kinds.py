"""Names for files that cannot be read as images, found by their first bytes.

Sources: Gary Kessler's table of file signatures; ISO 14496-12 (brands); the formats' own pages.
"""

import re
import zlib

HEAD = 4096  # bytes that are compared with the patterns
LFS_POINTER = b"version https://git-lfs"  # Git LFS leaves it in place of a file it did not fetch

# The decoder handles these kinds further.
HEIC = "a HEIC image"
AVIF = "an AVIF image whose header cannot be read"
TIFF = "a TIFF image whose header cannot be read"
NIFTI = "a NIfTI volume: save its slices as PNG"
# The first pattern that matches the beginning of a file names it. The remedy follows the colon.
KINDS = {
    LFS_POINTER: "a Git LFS pointer in place of the file: `git lfs pull` brings it",
    rb"\x89PNG|PNG\r\n": "a PNG image whose header cannot be read",
    rb"\xff\xd8\xff": "a JPEG image whose header cannot be read",
    rb"GIF8": "a GIF image whose header cannot be read",
    rb"BM.{4}\0\0\0\0": "a BMP image whose header cannot be read",
    rb"RIFF....WEBP": "a WebP image whose header cannot be read",
    rb"....jP  |\xff\x4f\xff\x51": "a JPEG 2000 image whose header cannot be read",
    rb"....ftyp(?:avif|avis)": AVIF,
    rb"....ftyp(?:hei[cxms]|hev[cmsx]|mif1|mif2|msf1)": HEIC,
    rb"\xff\x0a|\0\0\0\x0cJXL ": "a JPEG XL image: convert it to PNG or JPEG",
    rb"II\xbc": "a JPEG XR image: convert it to PNG or JPEG",
    rb"II\*\0.{4}CR": "a raw camera file (Canon CR2): develop it to TIFF or JPEG",
    rb"II\x1a\0.{4}HEAPCCDR": "a raw camera file (Canon CRW): develop it to TIFF or JPEG",
    rb"....ftypcrx": "a raw camera file (Canon CR3): develop it to TIFF or JPEG",
    rb"IIR[OS]|MMOR": "a raw camera file (Olympus ORF): develop it to TIFF or JPEG",
    rb"IIU\0": "a raw camera file (Panasonic RW2): develop it to TIFF or JPEG",
    rb"FUJIFILMCCD-RAW": "a raw camera file (Fujifilm RAF): develop it to TIFF or JPEG",
    rb"\0MRM": "a raw camera file (Minolta MRW): develop it to TIFF or JPEG",
    rb"FOVb": "a raw camera file (Sigma X3F): develop it to TIFF or JPEG",
    rb"II[*+]\0|MM\0[*+]": TIFF,
    rb"P[1-6]\s": "a PNM image whose header cannot be read",
    rb"P[7fF]\s": "a PAM or PFM image: convert it to PNG",
    rb"8BPS": "a Photoshop file: export it as PNG or JPEG",
    rb"gimp xcf": "a GIMP file: export it as PNG or JPEG",
    rb"KRITA|PSP|Paint Shop Pro": "a file of a paint program: export it as PNG or JPEG",
    rb"\0\0\x01\0": "an icon (ICO): convert it to PNG",
    rb"\0\0\x02\0[\x01-\x20]": "a cursor (CUR): convert it to PNG",
    rb"icns": "an icon (ICNS): convert it to PNG",
    rb"DDS ": "a DDS texture: convert it to PNG",
    rb"qoif": "a QOI image: convert it to PNG",
    rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]": "a PCX image: convert it to PNG",
    rb"\x01\xda[\0\x01][\x01\x02]": "an SGI image: convert it to PNG",
    rb"\x76\x2f\x31\x01": "an OpenEXR image: convert it to PNG",
    rb"#\?RADIANCE|#\?RGBE": "a Radiance HDR image: convert it to PNG",
    rb"SIMPLE  =": "a FITS file: convert it to TIFF or PNG",
    rb"\x59\xa6\x6a\x95": "a Sun raster image: convert it to PNG",
    rb"%PDF": "a PDF: export its images",
    rb"%!PS|\xc5\xd0\xd3\xc6": "a PostScript file: export it as PNG",
    rb"AT&TFORM": "a DjVu document: export its pages as PNG",
    rb"\x01\0\0\0.{36} EMF|\xd7\xcd\xc6\x9a": "a Windows metafile: export it as PNG",
    rb"\x93NUMPY": "a NumPy array (.npy): save each image of it as PNG",
    rb"PK\x03\x04.{26}[^\0]{0,99}\.npy": "NumPy arrays (.npz): save each image of them as PNG",
    rb"PK\x03\x04.{26,300}(?:\[Content_Types\]|_rels/)": "an Office document: export its images",
    rb"PK(?:\x03\x04|\x05\x06|\x07\x08)": "a ZIP archive: unpack it first",
    rb"Rar!": "a RAR archive: unpack it first",
    rb"7z\xbc\xaf\x27\x1c": "a 7-Zip archive: unpack it first",
    rb"BZh[1-9]": "a bzip2 archive: unpack it first",
    rb"\xfd7zXZ\0": "an XZ archive: unpack it first",
    rb"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it first",
    rb".{257}ustar": "a TAR archive: unpack it first",
    rb"\x5c\x01\0\0.{340}n(?:i1|\+1)\0|\0\0\x01\x5c.{340}n(?:i1|\+1)\0|.{4}n(?:i2|\+2)\0": NIFTI,
    rb"\x5c\x01\0\0|\0\0\x01\x5c": "an Analyze volume: save its slices as PNG",
    rb"NRRD000": "an NRRD volume: save its slices as PNG",
    rb"ObjectType *=|NDims *=": "a MetaImage volume: save its slices as PNG",
    rb"\x89HDF\r\n|.{512}\x89HDF": "an HDF5 file: save each image of it as PNG",
    rb"MATLAB ": "a MATLAB file: save each image of it as PNG",
    rb"ZISRAWFILE|\xda\xce\xbe\x0a|\x70\0\0\0.{4}\x2a": (
        "a microscope's own file (CZI, ND2, LIF): export it as TIFF"
    ),
    rb"....ftyp(?:qt  )|....(?:moov|mdat|wide)": "a video (QuickTime): save its frames as images",
    rb"....ftyp(?:M4A|M4B)|ID3|RIFF....WAVE|fLaC|\xff[\xfb\xf3\xf2]": "a sound file",
    rb"....ftyp": "a video (MP4): save its frames as images",
    rb"RIFF....AVI ": "a video (AVI): save its frames as images",
    rb"\x1a\x45\xdf\xa3": "a video (Matroska or WebM): save its frames as images",
    rb"FLV\x01": "a video (Flash): save its frames as images",
    rb"\0\0\x01[\xba\xb3]": "a video (MPEG): save its frames as images",
    rb"\x30\x26\xb2\x75": "a video (WMV): save its frames as images",
    rb"OggS": "a video or sound file (Ogg)",
    rb"\x80[\x02-\x05]": "a Python pickle: save each image of it as PNG",
    rb"PAR1": "a Parquet table: save each image of it as PNG",
    rb"SQLite format 3": "an SQLite database",
    rb"\xd0\xcf\x11\xe0": "an old Office document, or a thumbnail cache of Windows",
    rb"\0\x05\x16[\0\x07]": "what macOS keeps beside a file (AppleDouble), and not the file",
    rb"\0\0\0\x01Bud1": "a .DS_Store of macOS",
    rb"\x7fELF|MZ|\xcf\xfa\xed\xfe|\xfe\xed\xfa": "a program",
    rb"DICM": "a DICOM file without its preamble: `dcmconv` adds it",
    rb"[\x08\x02]\0|\0[\x08\x02]\0.[A-Z][A-Z]": (
        "perhaps a DICOM file without its preamble? `dcmconv` adds it"
    ),
}
# The same for texts, in lower case and without leading blanks.
TEXTS = {
    r"<svg|(?:<\?xml|<!--|<!doctype svg).*<svg": "an SVG drawing: export it as PNG",
    r"<!doctype html|<html|<head|<body|(?:<!--|<\?xml).*<html": (
        "an HTML page, such as a site sends in place of a file"
    ),
    r"<\?xml|<[a-z]+>": "an XML file",
    r"data:image/|ivborw0kggo|/9j/|r0lgod": "an image in base64: decode it first",
    r"/\* xpm|static char|#define \w+_width": "an image as C code (XPM, XBM): convert it to PNG",
    r"\{\\rtf": "a text document (RTF)",
    r"\[[.a-z][\w. ]*\]\s": "a settings file",
    r"[{\[].*[\"\]}]": "a JSON file",
}
TEXT = "a text file"
CONTROLS = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")  # no text has them


def name_kind(content: bytes) -> str:
    """Return what kind of file this is, and how to turn it into an image."""
    head = content[:HEAD]
    if head.startswith(b"\x1f\x8b"):
        return _name_gzip(content)
    for pattern, kind in KINDS.items():
        if re.match(pattern, head, re.DOTALL):
            return kind
    if content.endswith(b"TRUEVISION-XFILE.\0"):
        return "a TGA image: convert it to PNG"
    if not content.strip(b"\0"):
        return f"{len(content):,} bytes that are all zero, as a broken copy leaves them"
    return (
        _name_text(head)
        or f"a file of a kind that is not known here: it begins with {content[:8]!r}"
    )


def _name_gzip(content: bytes) -> str:
    try:
        inside = zlib.decompressobj(wbits=31).decompress(content, HEAD)
    except zlib.error:
        inside = b""
    kind = name_kind(inside) if inside and not inside.startswith(b"\x1f\x8b") else ""
    return f"{kind} (packed by gzip)" if kind == NIFTI else "a gzip archive: unpack it first"


def _name_text(head: bytes) -> str | None:
    """Name the kind of a text file; None if it is no text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head.decode("utf-16", "ignore")
    elif CONTROLS.search(head):
        return None
    else:
        text = head.decode("utf-8-sig", "ignore")
        if len(text.encode()) < 0.5 * len(head):
            return None
    text = text.strip().lower()
    return next(
        (kind for pattern, kind in TEXTS.items() if re.match(pattern, text, re.DOTALL)), TEXT
    )
