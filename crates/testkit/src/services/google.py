"""A stand-in for Google Cloud Storage: the part of its documented XML API that registries use.

Objects with generations and the precondition x-goog-if-generation-match, ranges, lists (version 2),
and multipart uploads whose parts must be there, in order, when they are completed. In memory.
The emulators that can be had speak the JSON API only, or ignore preconditions.

    python google.py PORT
"""

import hashlib
import http.server
import itertools
import re
import sys
import threading
import urllib.parse
from xml.sax.saxutils import escape

LOCK = threading.Lock()
GENERATIONS = itertools.count(1)
OBJECTS = {}  # (bucket, name) -> (bytes, generation)
UPLOADS = {}  # upload id -> ((bucket, name), {part number: bytes})


def etag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def begin(self):
        url = urllib.parse.urlsplit(self.path)
        _, bucket, *name = url.path.split("/", 2)
        self.key = (bucket, urllib.parse.unquote(name[0]) if name else "")
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status not in (204, 304):
            self.send_header("Content-Length", headers.pop("length", None) or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code):
        self.answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode())

    def no_match(self):
        """Whether the precondition of a write does not hold; 0 means that there is no object."""
        wanted = self.headers.get("x-goog-if-generation-match")
        return wanted is not None and int(wanted) != OBJECTS.get(self.key, (b"", 0))[1]

    def store(self, data):
        OBJECTS[self.key] = (data, next(GENERATIONS))
        return {"ETag": etag(data), "x_goog_generation": str(OBJECTS[self.key][1])}

    def do_PUT(self):
        self.begin()
        with LOCK:
            if "uploadId" in self.query:
                upload = UPLOADS.get(self.query["uploadId"])
                if not upload or upload[0] != self.key:
                    return self.error(404, "NoSuchUpload")
                upload[1][int(self.query["partNumber"])] = self.body
                return self.answer(200, ETag=etag(self.body))
            if self.no_match():
                return self.error(412, "PreconditionFailed")
            self.answer(200, **self.store(self.body))

    def do_POST(self):
        self.begin()
        with LOCK:
            if "uploads" in self.query:
                upload = f"upload-{next(GENERATIONS)}"
                UPLOADS[upload] = (self.key, {})
                return self.answer(200, (
                    f"<InitiateMultipartUploadResult><Bucket>{escape(self.key[0])}</Bucket>"
                    f"<Key>{escape(self.key[1])}</Key><UploadId>{upload}</UploadId>"
                    "</InitiateMultipartUploadResult>").encode())
            upload = UPLOADS.get(self.query.get("uploadId"))
            if not upload or upload[0] != self.key:
                return self.error(404, "NoSuchUpload")
            text = self.body.decode()
            numbers = [int(n) for n in re.findall(r"<PartNumber>(\d+)</PartNumber>", text)]
            tags = re.findall(r"<ETag>(.*?)</ETag>", text)
            parts = [upload[1].get(number) for number in numbers]
            if not numbers or numbers != sorted(set(numbers)) or None in parts:
                return self.error(400, "InvalidPart")
            if [tag.replace("&quot;", '"').strip('"') for tag in tags] != [
                etag(part).strip('"') for part in parts
            ]:
                return self.error(400, "InvalidPart")
            if self.no_match():
                return self.error(412, "PreconditionFailed")
            del UPLOADS[self.query["uploadId"]]
            headers = self.store(b"".join(parts))
            self.answer(200, (
                "<CompleteMultipartUploadResult>"
                f"<ETag>{escape(headers['ETag'])}</ETag></CompleteMultipartUploadResult>"
            ).encode(), **headers)

    def do_DELETE(self):
        self.begin()
        with LOCK:
            if "uploadId" in self.query:
                known = UPLOADS.pop(self.query["uploadId"], None)
            else:
                known = OBJECTS.pop(self.key, None)
        self.answer(204) if known else self.error(404, "NoSuchKey")

    def do_GET(self):
        self.begin()
        if not self.key[1]:
            return self.list()
        with LOCK:
            found = OBJECTS.get(self.key)
        if not found:
            return self.error(404, "NoSuchKey")
        data, generation = found
        headers = {
            "ETag": etag(data),
            "x_goog_generation": str(generation),
            "Last_Modified": "Tue, 24 Nov 2026 08:00:00 GMT",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return self.answer(200, data, **headers)
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        headers["Content_Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        self.answer(206, data[first : last + 1], **headers)

    do_HEAD = do_GET

    def list(self):
        prefix = self.query.get("prefix", "")
        with LOCK:
            names = sorted(n for b, n in OBJECTS if b == self.key[0] and n.startswith(prefix))
            sizes = {n: OBJECTS[(self.key[0], n)] for n in names}
        after = self.query.get("continuation-token", "")
        rest = [name for name in names if name > after]
        page = rest[:100]  # Short pages, so that whoever lists must ask for the next.
        contents = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(sizes[name][0])}</Size>"
            f"<LastModified>2026-11-24T08:00:00.000Z</LastModified>"
            f"<ETag>{escape(etag(sizes[name][0]))}</ETag></Contents>"
            for name in page
        )
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if rest[100:] else ""
        self.answer(200, f"<ListBucketResult>{contents}{more}</ListBucketResult>".encode())


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.serve_forever()
