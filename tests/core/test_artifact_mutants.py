"""Every check of the artifact contract bites: for each there is a filesystem broken in one way, which fails it."""

from __future__ import annotations

import fnmatch
import inspect
import io
import threading
import unicodedata
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bucket import Bucket, Upload
from mlcore.artifacts import hash_file
from mlcore.errors import MlcoreError
from mlcore.testing import ArtifactBackendContract

CHECKS = sorted(name for name in dir(ArtifactBackendContract) if name.startswith("test_"))
MUTANTS: list[tuple[str, type[Bucket]]] = []
Mutant = type[Bucket]


def breaks(*checks: str) -> Callable[[Mutant], Mutant]:
    """Say by which checks a broken filesystem must be found out."""

    def note(mutant: Mutant) -> Mutant:
        MUTANTS.extend((f"test_{name}", mutant) for name in checks)
        return mutant

    return note


class TestBucket(ArtifactBackendContract):
    """Guards the mutants' own ground: unbroken, it passes."""

    secrets = ("hunter2",)

    def open_backend(self, tmp_path: Path) -> tuple[Bucket, str]:
        return Bucket(), "root/of/it"

    def broken_places(self, tmp_path: Path) -> dict[str, Callable[[], tuple[Bucket, str]]]:
        return {"LOCKED": lambda: (Locked(), "root")}


class Locked(Bucket):
    """Let nobody in, and say so."""

    def refuse(self) -> None:
        raise PermissionError(13, "LOCKED: ask for the key")

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.refuse()
        return super().find(path, *args, **kwargs)

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> io.BytesIO:
        self.refuse()
        return super()._open(path, mode)


# Filesystems that change what they are given


@breaks("a_file_comes_back_byte_for_byte")
class LosesWhatComesAfterALargeBlock(Bucket):
    def publish(self, path: str, data: bytes) -> None:
        super().publish(path, data[: 5 << 20])


@breaks("a_file_comes_back_byte_for_byte")
class TakesBytesForText(Bucket):
    def publish(self, path: str, data: bytes) -> None:
        super().publish(path, data.replace(b"\r", b"\n"))


@breaks("a_file_comes_back_byte_for_byte")
class KeepsNoEmptyFile(Bucket):
    def publish(self, path: str, data: bytes) -> None:
        if data:
            super().publish(path, data)


@breaks("a_file_comes_back_byte_for_byte")
class SaysTheDigestOfSomethingElse(Bucket):
    def put_hashed(self, lpath: str, rpath: str, tick: Any) -> tuple[int, str]:
        self.publish(rpath, Path(lpath).read_bytes())
        return len(self.files[rpath]), "0" * 64


@breaks("a_large_file_comes_back_whole")
class PutsPartsInTheOrderOfTheirArrival(Bucket):
    def publish(self, path: str, data: bytes) -> None:
        super().publish(path, data[5 << 20 :] + data[: 5 << 20])


@breaks("a_large_file_comes_back_whole")
class NeedsAPathForManyParts(Bucket):
    def publish(self, path: str, data: bytes) -> None:
        super().publish(path, data[: 5 << 20])

    def put_hashed(self, lpath: str, rpath: str, tick: Any) -> tuple[int, str]:
        super().publish(rpath, Path(lpath).read_bytes())
        return len(self.files[rpath]), hash_file(lpath)


class Renaming(Bucket):
    def renamed(self, path: str) -> str:
        raise NotImplementedError

    def publish(self, path: str, data: bytes) -> None:
        super().publish(self.renamed(path), data)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        return super().cat_file(self.renamed(path), *args, **kwargs)


@breaks("every_name_can_be_used")
class DecodesPercents(Renaming):
    def renamed(self, path: str) -> str:
        return urllib.parse.unquote(path)


@breaks("every_name_can_be_used")
class DecomposesLetters(Renaming):
    def renamed(self, path: str) -> str:
        return unicodedata.normalize("NFD", path)


@breaks("every_name_can_be_used")
class CutsAtAQuestionMark(Renaming):
    def renamed(self, path: str) -> str:
        return path.partition("?")[0]


@breaks("every_name_can_be_used")
class CutsLongNames(Renaming):
    def renamed(self, path: str) -> str:
        return path[:128]


@breaks("every_name_can_be_used")
class TakesNamesForPatterns(Bucket):
    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        found = fnmatch.filter(self.files, path)
        return super().cat_file(found[0] if found else "", *args, **kwargs)


# Files and folders


@breaks("a_file_may_have_the_name_of_a_folder")
class HasNoFilesBesideFolders(Bucket):
    def publish(self, path: str, data: bytes) -> None:
        if self.below(path) or any(path.startswith(f"{name}/") for name in self.files):
            raise NotADirectoryError(path)
        super().publish(path, data)


@breaks("a_file_never_takes_the_place_of_a_folder")
class HasThemAfterAll(Bucket):
    files_beside_folders = False


@breaks("a_file_never_takes_the_place_of_a_folder")
class RemovesTheFolderForAFile(Bucket):
    files_beside_folders = False

    def publish(self, path: str, data: bytes) -> None:
        for name in self.below(path):
            del self.files[name]
        super().publish(path, data)


@breaks("a_new_file_replaces_the_old")
class WritesOverTheBeginning(Bucket):
    def publish(self, path: str, data: bytes) -> None:
        super().publish(path, data + self.files.get(path, b"")[len(data) :])


@breaks("a_new_file_replaces_the_old")
class KeepsTheFirst(Bucket):
    def publish(self, path: str, data: bytes) -> None:
        self.files.setdefault(path, data)


@breaks("a_new_file_replaces_the_old")
class RemembersSizes(Bucket):
    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Any] = {}

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return self.known.setdefault(path, super().info(path))


@breaks("folders_may_be_made_again")
class MakesFoldersOnce(Bucket):
    made: frozenset[str] = frozenset()

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        if path in self.made:
            raise FileExistsError(path)
        self.made |= {path}


@breaks("folders_may_be_made_again")
class EmptiesFoldersMadeAgain(Bucket):
    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.rm(path, recursive=True)


# Half of a file


class Eager(Upload):
    def write(self, data: Any) -> int:
        count = super().write(data)
        self.bucket.publish(self.path, self.getvalue())
        return count


@breaks("a_file_is_not_there_before_it_is_whole", "a_write_that_fails_shows_nothing")
class ShowsWhatIsWritten(Bucket):
    def upload(self, path: str) -> Upload:
        return Eager(self, path)


@breaks("a_file_is_not_there_before_it_is_whole", "a_write_that_fails_shows_nothing")
class RemovesTheOldFirst(Bucket):
    def upload(self, path: str) -> Upload:
        self.files.pop(path, None)
        return super().upload(path)


@breaks("a_file_is_not_there_before_it_is_whole")
class ShowsAnEmptyFileFirst(Bucket):
    def upload(self, path: str) -> Upload:
        self.files.setdefault(path, b"")
        return super().upload(path)


class Careless(Upload):
    def __exit__(self, *_: object) -> None:
        self.close()


@breaks("a_write_that_fails_shows_nothing")
class PublishesWhatFailed(Bucket):
    def upload(self, path: str) -> Upload:
        return Careless(self, path)


@breaks("a_write_that_fails_shows_nothing")
class LeavesPartsLying(Bucket):
    def upload(self, path: str) -> Upload:
        self.files[f"{path}.part"] = b""
        return super().upload(path)

    def publish(self, path: str, data: bytes) -> None:
        self.files.pop(f"{path}.part", None)
        super().publish(path, data)


class Closing(Upload):
    def __del__(self) -> None:
        self.close()


@breaks("a_writer_that_goes_away_leaves_nothing")
class PublishesWhatWasForgotten(Bucket):
    def upload(self, path: str) -> Upload:
        return Closing(self, path)


# Several at once


class Mixing(Upload):
    def write(self, data: Any) -> int:
        for start in range(0, len(data), 4096):
            self.bucket.parts.setdefault(self.path, io.BytesIO()).write(data[start : start + 4096])  # type: ignore[attr-defined]
            threading.Event().wait(0.0001)
        return len(data)

    def getvalue(self) -> bytes:
        parts: dict[str, io.BytesIO] = self.bucket.parts  # type: ignore[attr-defined]
        return parts.pop(self.path, io.BytesIO()).getvalue()


@breaks("of_writers_of_one_name_one_wins_whole")
class WritesToOnePartByName(Bucket):
    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, io.BytesIO] = {}

    def upload(self, path: str) -> Upload:
        return Mixing(self, path)


@breaks("of_writers_of_one_name_one_wins_whole")
class LetsOneWriteAtATime(Bucket):
    def __init__(self) -> None:
        super().__init__()
        self.writing: set[str] = set()

    def publish(self, path: str, data: bytes) -> None:
        if path in self.writing:
            raise BlockingIOError(path)
        self.writing.add(path)
        threading.Event().wait(0.01)
        super().publish(path, data)
        self.writing.discard(path)


@breaks("many_files_are_put_and_got_at_once")
class ForgetsWhichFileItWrites(Bucket):
    def upload(self, path: str) -> Upload:
        self.path = path
        threading.Event().wait(0.001)
        return super().upload(self.path)


class Lazy(io.RawIOBase):
    """Fetch what is read when it is read."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        self.bucket, self.path, self.position = bucket, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.bucket.files[self.path][self.position : self.position + len(buffer)]
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


@breaks("a_reader_of_what_is_replaced_reads_no_mix")
class ReadsWhateverIsThereByNow(Bucket):
    def reader(self, path: str) -> Any:
        self.cat_file(path)
        return Lazy(self, path)


class Remembering(Bucket):
    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Any] = {}


@breaks("what_was_just_done_is_seen_at_once")
class RemembersListings(Remembering):
    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        if path not in self.known:
            self.known[path] = super().ls(path)
        return [each if detail else each["name"] for each in self.known[path]]


@breaks("what_was_just_done_is_seen_at_once")
class RemembersWhatItFound(Remembering):
    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path not in self.known:
            self.known[path] = super().info(path)
        return self.known[path]  # type: ignore[no-any-return]


# What is there


@breaks("a_listing_does_not_end_with_a_page")
class ListsOnePage(Bucket):
    def below(self, path: str) -> list[str]:
        return super().below(path)[:20]


@breaks("a_listing_does_not_end_with_a_page")
class RemovesOnePage(Bucket):
    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        for name in self.below(path)[:20]:
            self.rm_file(name)


@breaks("a_folder_shows_what_is_directly_in_it", "a_listing_does_not_end_with_a_page")
class ShowsTheFolderInItself(Bucket):
    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        here = {"name": f"{path}/", "type": "directory", "size": 0}
        return [here if detail else here["name"], *super().ls(path, detail)]


@breaks("a_folder_shows_what_is_directly_in_it")
class ShowsAllThatIsBelow(Bucket):
    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        found = [self.info(name) for name in self.below(path)]
        return found if detail else [each["name"] for each in found]


@breaks("an_empty_folder_has_no_files")
class KeepsFoldersByAFile(Bucket):
    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.files[f"{path}/.keep"] = b""


@breaks("an_empty_folder_has_no_files")
class RemembersFolders(Bucket):
    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **_: Any) -> Any:
        found = super().find(path, detail=True)
        if not found and getattr(self, "had", False):
            found = {f"{path}/empty": {"name": f"{path}/empty", "type": "directory", "size": 0}}
        self.had = bool(found)
        return found


@breaks("a_listing_has_every_file_below_and_no_other", "removing_a_file_removes_nothing_else")
class TakesAFolderForAPrefix(Bucket):
    def below(self, path: str) -> list[str]:
        return sorted(name for name in self.files if name.startswith(path) and name != path)


@breaks("a_listing_has_every_file_below_and_no_other")
class ListsOneLevel(Bucket):
    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        found = super().find(path, *args, **kwargs)
        return {name: each for name, each in found.items() if "/" not in name[len(path) + 1 :]}


@breaks("a_listing_has_every_file_below_and_no_other")
class ListsNoSizes(Bucket):
    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return {name: each | {"size": None} for name, each in super().find(path, *args, **kwargs).items()}


@breaks("a_listing_of_what_is_not_there_is_empty")
class FailsToListNothing(Bucket):
    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if not (found := super().find(path, *args, **kwargs)):
            raise FileNotFoundError(path)
        return found


@breaks("a_listing_of_what_is_not_there_is_empty")
class ListsTheFolderItself(Bucket):
    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return super().find(path, *args, **kwargs) or {path: {"name": path, "size": 0, "type": "directory"}}


@breaks("a_file_and_a_folder_are_told_apart")
class KnowsNoFolders(Bucket):
    def isdir(self, path: str) -> bool:
        return False


@breaks("a_file_and_a_folder_are_told_apart")
class TakesFoldersForFiles(Bucket):
    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return super().info(path) | {"type": "file"}


@breaks("a_file_and_a_folder_are_told_apart")
class FindsWhatBeginsAlike(Bucket):
    def exists(self, path: str, **_: Any) -> bool:
        return any(name.startswith(path) for name in self.files)


@breaks("a_missing_file_is_told_of")
class ReadsNothingFromNothing(Bucket):
    def reader(self, path: str) -> io.BytesIO:
        return io.BytesIO(self.files.get(path, b""))


@breaks("a_missing_file_is_told_of")
class RaisesWhatItsLibraryRaises(Bucket):
    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        return self.files[path][slice(*args)]


@breaks("a_missing_file_is_told_of")
class MakesWhatItIsAskedFor(Bucket):
    def info(self, path: str, **_: Any) -> dict[str, Any]:
        self.files.setdefault(path, b"")
        return super().info(path)


# Parts of files


@breaks("a_range_of_a_file_can_be_read")
class ReadsToTheEndOfTheRange(Bucket):
    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return super().cat_file(path, start, end + 1 if end is not None and end > 0 else end)


@breaks("a_range_of_a_file_can_be_read")
class TakesNegativesForTheBeginning(Bucket):
    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return super().cat_file(path, max(start or 0, 0), end)


@breaks("a_range_of_a_file_can_be_read")
class TakesZeroForNone(Bucket):
    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return super().cat_file(path, start or None, end or None)


class Stream(io.BytesIO):
    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")


@breaks("an_open_file_can_be_searched")
class StreamsOnly(Bucket):
    def reader(self, path: str) -> io.BytesIO:
        return Stream(self.cat_file(path))


class Forward(io.BytesIO):
    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(abs(offset), 0)


@breaks("an_open_file_can_be_searched")
class SeeksFromTheBeginningOnly(Bucket):
    def reader(self, path: str) -> io.BytesIO:
        return Forward(self.cat_file(path))


@breaks("readers_do_not_share_a_position")
class SharesOneReader(Bucket):
    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[str, io.BytesIO] = {}

    def reader(self, path: str) -> io.BytesIO:
        return self.readers.setdefault(path, super().reader(path))


@breaks("removing_a_file_removes_nothing_else")
class RemovesByPattern(Bucket):
    def rm_file(self, path: str) -> None:
        for name in fnmatch.filter(list(self.files), path):
            del self.files[name]


@breaks("removing_a_file_removes_nothing_else")
class RemovesNothing(Bucket):
    def rm_file(self, path: str) -> None:
        pass


# What cannot work


@breaks("a_place_that_cannot_work_is_told_of")
class TakesALockForEmptiness(Locked):
    def find(self, *args: Any, **kwargs: Any) -> Any:
        return {}


@breaks("a_place_that_cannot_work_is_told_of")
class WritesIntoTheVoid(Locked):
    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> io.BytesIO:
        return Bucket._open(Bucket(), path, mode) if "w" in mode else super()._open(path, mode)


@breaks("a_place_that_cannot_work_is_told_of")
class SaysThatSomethingIsWrong(Locked):
    def refuse(self) -> None:
        raise PermissionError(13, "Something went wrong")


@breaks("a_place_that_cannot_work_is_told_of")
class TriesAgainForLong(Locked):
    def refuse(self) -> None:
        threading.Event().wait(1.1)
        super().refuse()


@breaks("a_place_that_cannot_work_is_told_of")
class TellsTheSecret(Locked):
    def refuse(self) -> None:
        try:
            raise ValueError("the key hunter2 is wrong")
        except ValueError as error:
            raise PermissionError(13, "LOCKED: ask for the key") from error


def found_out(check: str, mutant: Mutant, folder: Path) -> bool:
    """Tell whether a check finds fault with a filesystem."""
    capabilities = {name: getattr(mutant, name) for name in ("files_beside_folders", "own_readers")}
    function = getattr(ArtifactBackendContract, check)
    marks = getattr(function, "pytestmark", [])
    contract: Any = type("Contract", (ArtifactBackendContract,), capabilities)()
    contract.large, contract.many, contract.patience, contract.secrets = 12 << 20, 30, 1, ("hunter2",)
    contract.broken_places = lambda _: {"LOCKED": lambda: (mutant(), "root")}
    assert getattr(contract, check), f"{check} is not for {capabilities}"
    for number, size in enumerate(marks[0].args[1] if marks else [None]):
        own = folder / str(number)
        own.mkdir()
        given = {"backend": (mutant(), "root"), "tmp_path": own, "size": size}
        try:
            getattr(contract, check)(
                **{name: given[name] for name in inspect.signature(function).parameters if name != "self"}
            )
        except (AssertionError, MlcoreError, OSError, LookupError, pytest.fail.Exception):
            return True
    return False


@pytest.mark.parametrize(("check", "mutant"), MUTANTS, ids=lambda each: getattr(each, "__name__", None))
def test_a_broken_filesystem_is_found_out(check: str, mutant: Mutant, tmp_path: Path) -> None:
    """The check fails on a filesystem that breaks what it guards; where threads race, within a few attempts."""
    attempts = [tmp_path / str(number) for number in range(5)]
    assert any(attempt.mkdir() or found_out(check, mutant, attempt) for attempt in attempts)


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_has_a_broken_filesystem(check: str) -> None:
    """No check is without a filesystem that proves that it bites."""
    assert check in {name for name, _ in MUTANTS}


def test_every_broken_filesystem_names_a_check() -> None:
    """A renamed check does not leave a mutant behind that proves nothing."""
    assert {name for name, _ in MUTANTS} <= set(CHECKS)


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_says_what_it_guards(check: str) -> None:
    """The author who sees a check fail reads in one line what the filesystem promised."""
    text = getattr(ArtifactBackendContract, check).__doc__
    assert text
    assert len(text.splitlines()) == 1
