"""Google's own client, unchanged, against the storage of the local cloud. Each line printed is one thing that held."""

import hashlib
import sys
import urllib.error
import urllib.request

from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.cloud import storage
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials

endpoint, token, project, topic, scratch, key_file = sys.argv[1:7]
client = storage.Client(
    project=project,
    credentials=Credentials(token),
    client_options=ClientOptions(api_endpoint=endpoint),
)


def held(what):
    print(what, flush=True)


def refused(kind, call):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected")


bucket = client.bucket("official")
bucket.versioning_enabled = True
bucket.create()
refused(exceptions.Conflict, lambda: client.bucket("official").create())
assert "official" in [found.name for found in client.list_buckets()]
assert client.get_bucket("official").versioning_enabled
refused(exceptions.NotFound, lambda: client.get_bucket("nowhere"))
bucket.labels = {"made": "here"}
bucket.patch()
assert client.get_bucket("official").labels == {"made": "here"}
held("buckets")

small = bucket.blob("small/é #1?.txt")
small.metadata = {"who": "me"}
small.content_disposition = "inline"
small.upload_from_string(b"one", content_type="text/plain", if_generation_match=0, checksum="crc32c")
first = small.generation
refused(
    exceptions.PreconditionFailed,
    lambda: bucket.blob(small.name).upload_from_string(b"two", if_generation_match=0),
)
again = bucket.blob(small.name)
again.upload_from_string(b"two", if_generation_match=first, checksum="md5")
assert again.generation > first
assert bucket.get_blob(small.name, generation=first).metadata == {"who": "me"}
assert bucket.blob(small.name, generation=first).download_as_bytes() == b"one"
held("multipart uploads with preconditions")

large_bytes = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(100_000))
large = bucket.blob("large.bin", chunk_size=256 * 1024 * 3)
with open(scratch, "wb") as file:
    file.write(large_bytes)
large.upload_from_filename(scratch, if_generation_match=0, checksum="crc32c")
assert large.size == len(large_bytes)
held("resumable uploads")

assert bucket.blob("large.bin").download_as_bytes(checksum="crc32c") == large_bytes
assert bucket.blob("large.bin", chunk_size=256 * 1024).download_as_bytes() == large_bytes
assert bucket.blob("large.bin").download_as_bytes(start=10, end=19, raw_download=True) == large_bytes[10:20]
refused(exceptions.NotFound, lambda: bucket.blob("nothing").download_as_bytes())
held("downloads with checksums and ranges")

for name in ["a/1", "a/2", "a/b/3", "c"]:
    bucket.blob(name).upload_from_string(b"x")
listed = client.list_blobs("official", prefix="a/", delimiter="/", page_size=1)
assert [blob.name for blob in listed] == ["a/1", "a/2"]
assert listed.prefixes == {"a/b/"}
assert len([blob for blob in client.list_blobs("official", versions=True) if blob.name == small.name]) == 2
listed = client.list_blobs("official", match_glob="a/**", fields="items(name)")
assert [(blob.name, blob.size) for blob in listed] == [("a/1", None), ("a/2", None), ("a/b/3", None)]
held("lists with prefix, delimiter, pages and versions")

copied = bucket.copy_blob(bucket.blob(small.name), bucket, "copy.txt", source_generation=first)
assert copied.download_as_bytes() == b"one" and copied.metadata == {"who": "me"}
rewritten = bucket.blob("rewritten.txt")
_, done, total = rewritten.rewrite(bucket.blob("copy.txt"))
assert done == total == 3
refused(
    exceptions.PreconditionFailed,
    lambda: bucket.copy_blob(bucket.blob("c"), bucket, "copy.txt", if_generation_match=0),
)
renamed = bucket.rename_blob(bucket.blob("c"), "d")
assert renamed.name == "d" and bucket.get_blob("c") is None
moved = bucket.move_blob(renamed, "e")
assert moved.name == "e" and moved.download_as_bytes() == b"x" and bucket.get_blob("d") is None
renamed = bucket.rename_blob(moved, "d")
held("copies")

parts = [bucket.blob("a/1"), bucket.blob("large.bin")]
whole = bucket.blob("composed.bin")
whole.compose(parts, if_generation_match=0)
whole.reload()
assert whole.component_count == 2 and whole.md5_hash is None
assert whole.download_as_bytes(checksum="crc32c") == b"x" + large_bytes
refused(exceptions.PreconditionFailed, lambda: bucket.blob("composed.bin").compose(parts, if_generation_match=0))
held("compose")

renamed.metadata = {"k": "v", "gone": "soon"}
renamed.patch()
renamed.metadata = {"k": "w", "gone": None}
renamed.patch(if_metageneration_match=2)
assert bucket.get_blob("d").metadata == {"k": "w"}
refused(exceptions.PreconditionFailed, lambda: renamed.patch(if_metageneration_match=1))
held("metadata")

etag = bucket.get_blob("d").etag
renamed.reload(if_etag_match=etag)
refused(exceptions.PreconditionFailed, lambda: renamed.reload(if_etag_match="another"))
refused(exceptions.PreconditionFailed, lambda: bucket.reload(if_etag_match="another"))
try:
    renamed.download_as_bytes(if_etag_not_match=etag)
    raise AssertionError("bytes came that the client has")
except exceptions.GoogleAPICallError as error:
    assert error.code == 304
held("etags as conditions")

names = [f"batch/{n} é" for n in range(100)]
for name in names[:3]:
    bucket.blob(name).upload_from_string(b"x")
with client.batch():
    patched = [bucket.blob(name) for name in names[:2]]
    for blob in patched:
        blob.metadata = {"in": "a batch"}
        blob.patch()
assert [blob.metageneration for blob in patched] == [2, 2]
assert bucket.get_blob(names[1]).metadata == {"in": "a batch"}
with client.batch(raise_exception=False) as batch:
    bucket.blob(names[0]).delete(if_generation_match=1)
    bucket.blob("batch/none").delete()
    bucket.blob(names[2]).delete()
    client.bucket("nowhere").blob("x").patch()
answers = [(answer.status_code, answer.content and answer.json()["error"]["errors"][0]["reason"]) for answer in batch._responses]
assert answers == [(412, "conditionNotMet"), (404, "notFound"), (204, b""), (404, "notFound")], answers
assert [blob.name for blob in client.list_blobs(bucket, prefix="batch/")] == names[:2]


def deleted(these):
    with client.batch(raise_exception=False) as batch:
        for name in these:
            bucket.blob(name).delete()
    return [answer.status_code for answer in batch._responses]


assert deleted(names) == [204] * 2 + [404] * 98
bucket.blob("batch/kept").upload_from_string(b"x")
refused(exceptions.BadRequest, lambda: deleted(["batch/kept"] * 101))
assert bucket.get_blob("batch/kept") is not None
held("batches")

notification = bucket.notification(topic_name=topic, event_types=["OBJECT_FINALIZE"], payload_format="JSON_API_V1")
notification.create()
assert [found.topic_name for found in bucket.list_notifications()] == [topic]
notification.delete()
assert list(bucket.list_notifications()) == []
held("notifications")

signer = service_account.Credentials.from_service_account_file(key_file)


def link(name, method, **more):
    more = {"version": "v4", "expiration": 60, "api_access_endpoint": endpoint, "credentials": signer, **more}
    return bucket.blob(name).generate_signed_url(method=method, **more)


def call(url, method="GET", data=None, headers=None):
    return urllib.request.urlopen(urllib.request.Request(url, data, headers or {}, method=method))


assert call(link(small.name, "GET", generation=first)).read() == b"one"
answer = call(link("copy.txt", "GET", response_disposition="attachment", response_type="text/x"))
assert (answer.headers["content-disposition"], answer.headers["content-type"]) == ("attachment", "text/x")
call(link("put.txt", "PUT", content_type="text/plain"), "PUT", b"put", {"content-type": "text/plain"})
assert bucket.blob("put.txt").download_as_bytes() == b"put"
start = link("resumed.txt", "RESUMABLE", content_type="text/plain")
session = call(start, "POST", b"", {"content-type": "text/plain", "x-goog-resumable": "start"}).headers["location"]
call(session, "PUT", b"resumed")
assert bucket.blob("resumed.txt").download_as_bytes() == b"resumed"
try:
    call(link("copy.txt", "GET").replace("copy.txt", "put.txt"))
    raise AssertionError("a link to another object was taken")
except urllib.error.HTTPError as error:
    assert error.code == 403 and b"SignatureDoesNotMatch" in error.read()
held("signed URLs: GET, PUT, resumable POST")

refused(exceptions.PreconditionFailed, lambda: renamed.delete(if_generation_match=1))
renamed.delete(if_generation_match=bucket.get_blob("d").generation)
refused(exceptions.NotFound, lambda: bucket.blob("d").delete())
refused(exceptions.Conflict, lambda: bucket.delete())
for blob in client.list_blobs("official", versions=True):
    blob.delete()
bucket.delete()
held("deletions")

# What a client without credentials gets, which the library answers by asking for some.
try:
    call(f"{endpoint}/storage/v1/b/input")
    raise AssertionError("a stranger was let in")
except urllib.error.HTTPError as error:
    assert error.code == 401
held("refusals")
