#!/usr/bin/env python3
"""Writes the seeds of the targets `package` (real packages, in the target's own description) and `options`."""
import pathlib
import zipfile

HERE = pathlib.Path(__file__).parent
DOCUMENTS = HERE.parent / "fixtures/documents"
NAMES = ["docx", "odt", "", "xlsx", "pptx", "docm", "ods", "odp", "key", "pages", "vsdx", "doc"]
PARTS = ["[Content_Types].xml", "_rels/.rels", "word/document.xml", "xl/workbook.xml", "ppt/presentation.xml",
         "mimetype", "META-INF/manifest.xml", "content.xml"]
LONGEST = 900


def package(path):
    extension = path.suffix[1:]
    described = bytes([NAMES.index(extension) if extension in NAMES else 2, 0])
    with zipfile.ZipFile(path) as archive:
        # The parts that inspection reads; others only as long as an input stays small.
        kept = [info for info in archive.infolist() if info.filename in PARTS or info.file_size < LONGEST][:16]
        for info in kept:
            content = archive.read(info)[:4000]
            name = info.filename.encode()
            named = bytes([PARTS.index(info.filename)]) if info.filename in PARTS else bytes([255, len(name)]) + name
            deflated = 1 if info.compress_type else 0
            described += named + bytes([deflated]) + len(content).to_bytes(2, "little") + content
    return described


def main():
    packages = HERE / "seeds/package"
    packages.mkdir(parents=True, exist_ok=True)
    for path in sorted((DOCUMENTS / "plain").iterdir()):
        if zipfile.is_zipfile(path) and path.stat().st_size < 20_000:
            (packages / path.name).write_bytes(package(path))
    types = (b'<Types><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-'
             b'officedocument.wordprocessingml.document.main+xml"/></Types>')
    relationships = (b'<Relationships><Relationship Type="http://schemas.openxmlformats.org/officeDocument/2006/'
                     b'relationships/officeDocument" Target="word/document.xml"/></Relationships>')
    least = [(0, types), (1, relationships)]

    def describe(directory, entries):
        return bytes([0, directory]) + b"".join(
            bytes([part, bent]) + len(content).to_bytes(2, "little") + content for part, bent, content in entries)

    for name, directory, bent, body in [
        ("least", 0, 1, b"<d/>"), ("size-lies", 0, 3, b"<d/>"), ("checksum-lies", 0, 5, b"<d/>"),
        ("encrypted", 0, 8, b"<d/>"), ("other-local-name", 0, 16, b"<d/>"), ("other-method", 0, 32, b"<d/>"),
        ("repeated", 0, 65, b"<d>" * 30), ("cut", 0, 129, b"<d/>"), ("count-lies", 1, 1, b"<d/>"),
        ("junk-before", 2, 1, b"<d/>"), ("junk-after", 4, 1, b"<d/>"), ("offset-lies", 8, 1, b"<d/>"),
        ("bomb", 0, 65, b" " * 9000), ("nested", 0, 1, b"<d>" * 20), ("entity", 0, 1, b'<!DOCTYPE d [<!ENTITY a "b">]><d/>'),
    ]:
        entries = [(part, 0, content) for part, content in least] + [(2, bent, body)]
        (packages / f"bent-{name}").write_bytes(describe(directory, entries))
    (packages / "bent-many-entries").write_bytes(describe(0, [(2, 0, b"")] * 40))

    options = HERE / "seeds/options"
    options.mkdir(parents=True, exist_ok=True)
    for name, seed in {
        "none": b"\x00{}",
        "quality": b'\x00{"quality": 50, "reduceImageResolution": true, "maxImageResolution": 150}',
        "switches": b'\x00{"pdfua": true, "exportBookmarks": false, "exportNotes": true, "exportHiddenSlides": true}',
        "pages": b'\x00{"nativePageRanges": " 1-3, 5,8-"}',
        "archive": b'\x00{"pdfa": "PDF/A-2b", "addOriginalDocumentAsStream": true}',
        "watermark": '\x00{"nativeWatermarkText": "\u00fcber\\u0041", "nativeWatermarkColor": 255}'.encode(),
        "view": b'\x00{"magnification": 4, "zoom": 50, "initialView": 2, "pageLayout": 3, "initialPage": 2}',
        "wrong-shape": b'\x00{"quality": "high", "zoom": 1e400, "pdfua": null, "initialPage": [{}]}',
        "unknown": b'\x00{"nope": 1}',
        "png": b'\x04{"quality": 1}',
        "arguments": b"\x02quality=50\nnativeWatermarkText=a=b\npdfua=true",
        "arguments-twice": b"\x02quality=50\nquality=60\nnope",
        "message": b'\x03{"source": "gs://in/a.docx", "generation": "3", "outputs": [{"format": "pdf", "name": "{stem}.{ext}",'
                   b' "options": {"quality": 1}}], "signedUrl": {"ttl": "15m", "disposition": "inline"}, "revision": "2",'
                   b' "userData": {"t": [1, null]}}',
        "message-png": b'\x03{"source": "gs://in/a.docx", "outputs": [{"format": "png"}, {"format": "html", "options": {}}]}',
    }.items():
        (options / name).write_bytes(seed)


main()
