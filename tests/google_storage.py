"""What gcsfs and TensorStore ask of Google's object store, answered from memory.

Objects have generations, and what is asked under a condition on them is done or refused as a whole:
that is what a lease and Orbax's commits rest on.
"""

import base64
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlencode, urlparse


class Store(ThreadingHTTPServer):
    """Objects by bucket and name, each its content and its generation."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Request)
        self.objects: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.begun: list[bytes] = []  # uploads that come in chunks
        self.lock = threading.Lock()
        self.newest = time.time_ns()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """Whoever closes a connection has what it wanted."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _handle(self):
        address = urlparse(self.path)
        self.query = {key: values[0] for key, values in parse_qs(address.query).items()}
        body = self._body()
        if address.path.startswith("/batch/"):
            return self._batch(re.findall(rb"DELETE [^ ]*/b/([^/]+)/o/([^ ?]+)", body))
        found = re.search(r"/storage/v1/b/([^/]+)(?:/o(?:/(.*))?)?$", address.path)
        if found is None:
            return self._answer(404)
        bucket, name = unquote(found[1]), found[2] and unquote(found[2])
        with self.server.lock:
            if "/rewriteTo/" in address.path or "/copyTo/" in address.path:
                return self._copy(address.path)
            if self.command in ("POST", "PUT") and "/upload/" in address.path:
                return self._upload(bucket, body)
            if self.command == "DELETE":
                return self._delete((bucket, name))
            if name is not None:
                return self._read((bucket, name), "/download/" in address.path)
            if address.path.endswith("/o"):
                return self._list(bucket)
            return self._json({"kind": "storage#bucket", "name": bucket})

    do_GET = do_POST = do_DELETE = do_PUT = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _answer(self, status: int, content: bytes = b"", **headers: object) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _json(self, value: dict, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _described(self, key: tuple[str, str]) -> dict:
        content, generation = self.server.objects[key]
        return {
            "kind": "storage#object",
            "bucket": key[0],
            "name": key[1],
            "size": str(len(content)),
            "generation": str(generation),
            "etag": str(generation),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def _refused(self, key: tuple[str, str]) -> bool:
        """Answers where a condition on the generation does not hold; 0 is that of no object."""
        now = self.server.objects.get(key, (b"", 0))[1]
        if self.query.get("ifGenerationMatch", str(now)) != str(now):
            self._answer(412)
            return True
        if self.query.get("ifGenerationNotMatch") == str(now):
            self._answer(304 if self.command == "GET" else 412)
            return True
        return False

    def _put(self, key: tuple[str, str], content: bytes) -> None:
        self.server.newest += 1
        self.server.objects[key] = (content, self.server.newest)
        self._json(self._described(key))

    def _upload(self, bucket: str, body: bytes) -> None:
        name = self.query.get("name")
        if self.query.get("uploadType") == "resumable":
            return self._begin((bucket, name or json.loads(body)["name"]))
        if self.query.get("uploadType") == "chunk":
            return self._chunk(bucket, name, body)
        if self.query.get("uploadType") == "multipart":
            mark = (
                b"--" + re.search('boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            )
            _, described, data = body.split(mark, 2)
            name = json.loads(described.partition(b"\n\n")[2])["name"]
            body = data.partition(b"\n\n")[2].removesuffix(b"\n" + mark + b"--")
        if not self._refused((bucket, name)):
            self._put((bucket, name), body)

    def _begin(self, key: tuple[str, str]) -> None:
        condition = self.query.get("ifGenerationMatch")
        asked = {"uploadType": "chunk", "name": key[1], "id": len(self.server.begun)}
        asked |= {} if condition is None else {"ifGenerationMatch": condition}
        self.server.begun.append(b"")
        path = f"/upload/storage/v1/b/{key[0]}/o?{urlencode(asked)}"
        self._answer(200, Location=self.server.url + path)

    def _chunk(self, bucket: str, name: str, body: bytes) -> None:
        number = int(self.query["id"])
        whole = self.server.begun[number] = self.server.begun[number] + body
        total = self.headers.get("Content-Range", "/*").rpartition("/")[2]
        if total == "*" or int(total) > len(whole):
            self._answer(308, Range=f"bytes=0-{len(whole) - 1}")
        elif not self._refused((bucket, name)):
            self._put((bucket, name), whole)

    def _delete(self, key: tuple[str, str]) -> None:
        if key not in self.server.objects:
            return self._answer(404)
        if not self._refused(key):
            del self.server.objects[key]
            self._answer(204)

    def _batch(self, deleted: list[tuple[bytes, bytes]]) -> None:
        parts = []
        for bucket, name in deleted:
            key = unquote(bucket.decode()), unquote(name.decode())
            with self.server.lock:
                gone = self.server.objects.pop(key, None)
            parts.append(f"--part\r\n\r\nHTTP/1.1 {204 if gone else 404}\r\n\r\n")
        content = "".join([*parts, "--part--"]).encode()
        self._answer(200, content, Content_Type="multipart/mixed; boundary=part")

    def _copy(self, path: str) -> None:
        parts = re.search(r"/b/([^/]+)/o/([^/]+)/(?:rewrite|copy)To/b/([^/]+)/o/(.+)$", path)
        source, target = map(unquote, parts.groups()[:2]), map(unquote, parts.groups()[2:])
        content, _ = self.server.objects[tuple(source)]
        key = tuple(target)
        self.server.newest += 1
        self.server.objects[key] = (content, self.server.newest)
        self._json({"done": True, "resource": self._described(key)})

    def _read(self, key: tuple[str, str], whole: bool) -> None:
        if key not in self.server.objects:
            return self._answer(404)
        if self._refused(key):
            return None
        if not whole and self.query.get("alt") != "media":
            return self._json(self._described(key))
        content, generation = self.server.objects[key]
        ranged = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        version = {"x_goog_generation": generation}
        if not ranged:
            return self._answer(200, content, **version)
        size = len(content)
        first = int(ranged[1]) if ranged[1] else max(0, size - int(ranged[2]))
        last = min(int(ranged[2]), size - 1) if ranged[1] and ranged[2] else size - 1
        if first >= size:
            return self._answer(416, Content_Range=f"bytes */{size}")
        part = {"Content_Range": f"bytes {first}-{last}/{size}"}
        return self._answer(206, content[first : last + 1], **version, **part)

    def _list(self, bucket: str) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        items, prefixes = [], set()
        for key in sorted(self.server.objects):
            rest = key[1].removeprefix(prefix)
            if key[0] != bucket or not key[1].startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(self._described(key))
        self._json({"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})
