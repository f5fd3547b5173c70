# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=True
"""One HTTP/2 connection that carries gRPC messages: bytes in, events out. No sockets, no clock.

nghttp2 does HTTP/2; this cuts messages out of DATA frames and puts them into them. It reserves no memory of its
own: what is kept are Python objects and what nghttp2 keeps. A message that is announced and has not come reserves
nothing; what has come grows a bytearray.

Flow control: the connection's window is given back as bytes come, so that one call that is not read from holds up no
other. A call's own window is given back only while none of its messages waits to be taken.
"""
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from scheduler.wire.nghttp2 cimport *

cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #ifndef FAIRLANE_NGHTTP2_PACKAGE
    #define FAIRLANE_NGHTTP2_PACKAGE ""
    #endif
    static const char *fairlane_library(void) {
        Dl_info about;
        return dladdr((void *)nghttp2_version, &about) ? about.dli_fname : "";
    }
    """
    const char *FAIRLANE_NGHTTP2_PACKAGE
    const char *fairlane_library()

cdef enum:
    MOST_FIELDS = 256           # header fields in one block that is sent
    PREFIX = 5                  # bytes before each message: whether it is compressed, and its length
    SEND_BYTES = 262144         # of one send(): the transport tells when it has enough
    RESET_BURST = 20000         # calls that a peer may reset at once,
    RESETS_A_SECOND = 5000      # and from then on: one that gives up on each of its calls is no attacker
    FRAME_BYTES = 16384

# Kinds of events: each is a tuple of its kind, the stream, and what follows here.
HEADERS = 1     # fields: list[tuple[str, str]] or None where they were too large; whether the peer has ended the stream
MESSAGE = 2     # payload: bytes; whether it is compressed
END = 3         # the peer has ended its side; whether in the middle of a message
TOO_LONG = 4    # bytes of a message that was announced and is longer than it may be; the rest of the stream is dropped
CLOSED = 5      # HTTP/2's error code
DRAINED = 6     # all messages have left
PING = 7        # stream 0
PONG = 8        # stream 0; what was sent: bytes
GOAWAY = 9      # the last stream that the peer cares for; HTTP/2's error code; its words: bytes
SETTINGS = 10   # stream 0

Event = tuple
PACKAGE = FAIRLANE_NGHTTP2_PACKAGE.decode()
VERSION = nghttp2_version(0).version_str.decode()
LIBRARY = fairlane_library().decode()


class ConnectionBroken(Exception):
    """The peer broke the protocol, or flooded the connection, in a way that leaves nothing but to cut it."""


cdef class _Stream:
    # Received.
    cdef list fields
    cdef Py_ssize_t fields_bytes
    cdef uint8_t prefix[PREFIX]
    cdef Py_ssize_t prefix_got
    cdef Py_ssize_t need
    cdef object body            # bytearray of a message that came in part
    cdef Py_ssize_t untaken     # messages
    cdef Py_ssize_t held        # bytes of the window that are not given back yet
    cdef bint dropping, begun, remote_ended
    # To be sent.
    cdef object queue           # deque of (compressed, payload)
    cdef Py_ssize_t sent        # bytes of the first of them, with its prefix
    cdef Py_ssize_t waiting     # bytes of all of them
    cdef bint deferred, ending
    cdef list trailers


cdef size_t _filled(nghttp2_nv *at, list fields) except 0:
    """Put pairs of bytes into an array of MOST_FIELDS; nghttp2 copies them when it is given the array."""
    cdef Py_ssize_t count = len(fields), place
    cdef bytes name, value
    if not 0 < count <= MOST_FIELDS:
        raise ValueError(f"expected 1 to {MOST_FIELDS} header fields, got {count}")
    for place in range(count):
        name, value = fields[place]
        at[place].name = <uint8_t*>PyBytes_AS_STRING(name)
        at[place].namelen = PyBytes_GET_SIZE(name)
        at[place].value = <uint8_t*>PyBytes_AS_STRING(value)
        at[place].valuelen = PyBytes_GET_SIZE(value)
        at[place].flags = NGHTTP2_NV_FLAG_NONE
    return count


cdef class Connection:
    cdef nghttp2_session *session
    cdef dict streams
    cdef list seen
    cdef object error
    cdef readonly bint client
    cdef readonly int32_t header_of     # the stream whose header block is being read; 0: none is
    cdef Py_ssize_t message_bytes, metadata_bytes

    def __cinit__(
        self, *, bint client, Py_ssize_t message_bytes, Py_ssize_t metadata_bytes, uint32_t streams,
        int32_t stream_window, int32_t connection_window
    ):
        cdef nghttp2_option *option
        cdef nghttp2_settings_entry settings[4]
        cdef int failed
        self.client = client
        self.streams = {}
        self.seen = []
        self.message_bytes = message_bytes
        self.metadata_bytes = metadata_bytes
        if nghttp2_option_new(&option):
            raise MemoryError
        nghttp2_option_set_no_auto_window_update(option, 1)
        nghttp2_option_set_no_closed_streams(option, 1)
        nghttp2_option_set_stream_reset_rate_limit(option, RESET_BURST, RESETS_A_SECOND)
        nghttp2_option_set_max_continuations(option, 2 + metadata_bytes // FRAME_BYTES)
        nghttp2_option_set_max_send_header_block_length(option, max(65536, 2 * metadata_bytes))
        if client:
            failed = nghttp2_session_client_new2(&self.session, CALLBACKS, <void*>self, option)
        else:
            failed = nghttp2_session_server_new2(&self.session, CALLBACKS, <void*>self, option)
        nghttp2_option_del(option)
        self.check(failed)
        settings[0].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        settings[0].value = stream_window
        settings[1].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        settings[1].value = metadata_bytes
        settings[2].settings_id = NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES
        settings[2].value = 1
        settings[3].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH if client else NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        settings[3].value = 0 if client else streams
        self.check(nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, settings, 4))
        self.check(nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, 0, connection_window))

    def __dealloc__(self):
        if self.session != NULL:
            nghttp2_session_del(self.session)

    cdef int check(self, int failed) except -1:
        if failed < 0:
            raise ConnectionBroken(nghttp2_strerror(failed).decode())
        return 0

    @property
    def finished(self):
        """Whether nothing is left to be read or written."""
        return not nghttp2_session_want_read(self.session) and not nghttp2_session_want_write(self.session)

    @property
    def open_streams(self):
        return len(self.streams)

    def receive(self, bytes data not None):
        cdef ssize_t got = nghttp2_session_mem_recv(
            self.session, <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        )
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.check(<int>min(got, 0))

    def events(self):
        seen, self.seen = self.seen, []
        return seen

    def send(self):
        cdef const uint8_t *chunk
        cdef ssize_t size
        cdef Py_ssize_t total = 0
        cdef list parts = []
        while total < SEND_BYTES:
            size = nghttp2_session_mem_send(self.session, &chunk)
            if self.error is not None:
                error, self.error = self.error, None
                raise error
            self.check(<int>min(size, 0))
            if size == 0:
                break
            parts.append(PyBytes_FromStringAndSize(<const char*>chunk, size))
            total += size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def request(self, list fields not None):
        cdef nghttp2_nv filled[MOST_FIELDS]
        cdef nghttp2_data_provider provider
        cdef size_t count = _filled(filled, fields)
        cdef int32_t stream_id
        provider.source.ptr = NULL
        provider.read_callback = _on_read
        stream_id = nghttp2_submit_request(self.session, NULL, filled, count, &provider, NULL)
        self.check(stream_id)
        self.streams[stream_id] = _new_stream()
        return stream_id

    def respond(self, int32_t stream_id, list fields not None, bint end):
        cdef nghttp2_nv filled[MOST_FIELDS]
        cdef nghttp2_data_provider provider
        cdef size_t count
        if stream_id not in self.streams:
            return False
        count = _filled(filled, fields)
        provider.source.ptr = NULL
        provider.read_callback = _on_read
        self.check(nghttp2_submit_response(self.session, stream_id, filled, count, NULL if end else &provider))
        return True

    def write(self, int32_t stream_id, bytes payload not None, bint compressed):
        cdef _Stream stream = self.streams.get(stream_id)
        if stream is None or stream.ending:
            return 0
        stream.queue.append((compressed, payload))
        stream.waiting += PREFIX + PyBytes_GET_SIZE(payload)
        self.resume(stream_id, stream)
        return stream.waiting

    def end(self, int32_t stream_id, list trailers):
        cdef _Stream stream = self.streams.get(stream_id)
        if stream is None or stream.ending:
            return
        stream.ending = True
        stream.trailers = trailers
        self.resume(stream_id, stream)

    cdef int resume(self, int32_t stream_id, _Stream stream) except -1:
        if stream.deferred:
            stream.deferred = False
            self.check(nghttp2_session_resume_data(self.session, stream_id))
        return 0

    def reset(self, int32_t stream_id, uint32_t code):
        if stream_id in self.streams:
            self.check(nghttp2_submit_rst_stream(self.session, NGHTTP2_FLAG_NONE, stream_id, code))

    def taken(self, int32_t stream_id):
        cdef _Stream stream = self.streams.get(stream_id)
        if stream is None or stream.untaken == 0:
            return
        stream.untaken -= 1
        if stream.untaken == 0 and stream.held:
            held, stream.held = stream.held, 0
            self.check(nghttp2_session_consume_stream(self.session, stream_id, held))

    def ping(self, bytes payload not None):
        if PyBytes_GET_SIZE(payload) != 8:
            raise ValueError(f"expected 8 bytes, got {len(payload)}")
        self.check(nghttp2_submit_ping(
            self.session, NGHTTP2_FLAG_NONE, <const uint8_t*>PyBytes_AS_STRING(payload)
        ))

    def announce_goaway(self):
        self.check(nghttp2_submit_shutdown_notice(self.session))

    def goaway(self, uint32_t code, bytes words not None):
        cdef int32_t last = nghttp2_session_get_last_proc_stream_id(self.session)
        self.check(nghttp2_submit_goaway(
            self.session, NGHTTP2_FLAG_NONE, last, code,
            <const uint8_t*>PyBytes_AS_STRING(words), PyBytes_GET_SIZE(words)
        ))

    def terminate(self, uint32_t code):
        self.check(nghttp2_session_terminate_session(self.session, code))

    # What nghttp2 calls.

    cdef int on_begin_headers(self, const nghttp2_frame *frame) except -1:
        cdef _Stream stream = self.streams.get(frame.hd.stream_id)
        if stream is None:
            if self.client:
                return 0
            stream = self.streams[frame.hd.stream_id] = _new_stream()
        stream.fields = []
        stream.fields_bytes = 0
        self.header_of = frame.hd.stream_id
        return 0

    cdef int on_header(
        self, const nghttp2_frame *frame, const uint8_t *name, size_t name_size, const uint8_t *value, size_t value_size
    ) except -1:
        cdef _Stream stream = self.streams.get(frame.hd.stream_id)
        if stream is None:
            return 0
        # As SETTINGS_MAX_HEADER_LIST_SIZE counts. One small index may stand for a large field, any number of times.
        stream.fields_bytes += name_size + value_size + 32
        if stream.fields_bytes > self.metadata_bytes:
            stream.fields = None
        if stream.fields is not None:
            stream.fields.append((
                PyUnicode_DecodeLatin1(<const char*>name, name_size, NULL),
                PyUnicode_DecodeLatin1(<const char*>value, value_size, NULL),
            ))
        return 0

    cdef int on_data(self, int32_t stream_id, const uint8_t *data, size_t length) except -1:
        cdef _Stream stream = self.streams.get(stream_id)
        cdef size_t at = 0
        cdef size_t more
        self.check(nghttp2_session_consume_connection(self.session, length))
        if stream is None:
            return 0
        if stream.untaken and not stream.dropping:
            stream.held += length
        else:
            self.check(nghttp2_session_consume_stream(self.session, stream_id, length))
        while at < length and not stream.dropping:
            if stream.prefix_got < PREFIX:
                stream.prefix[stream.prefix_got] = data[at]
                stream.prefix_got += 1
                at += 1
                if stream.prefix_got < PREFIX:
                    continue
                stream.need = (
                    (<Py_ssize_t>stream.prefix[1] << 24) | (<Py_ssize_t>stream.prefix[2] << 16)
                    | (<Py_ssize_t>stream.prefix[3] << 8) | stream.prefix[4]
                )
                if stream.need > self.message_bytes:
                    stream.dropping = True
                    self.seen.append((TOO_LONG, stream_id, stream.need))
                    return 0
            more = min(length - at, <size_t>stream.need)
            if more == <size_t>stream.need and stream.body is None:
                payload = PyBytes_FromStringAndSize(<const char*>data + at, more)
            else:
                if stream.body is None:
                    stream.body = bytearray()
                stream.body += PyBytes_FromStringAndSize(<const char*>data + at, more)
                payload = bytes(stream.body) if more == <size_t>stream.need else None
            at += more
            stream.need -= more
            if payload is not None:
                stream.body = None
                stream.prefix_got = 0
                stream.untaken += 1
                self.seen.append((MESSAGE, stream_id, payload, stream.prefix[0] != 0))
        return 0

    cdef int on_frame(self, const nghttp2_frame *frame) except -1:
        cdef int32_t stream_id = frame.hd.stream_id
        cdef _Stream stream
        cdef bint ended = frame.hd.flags & NGHTTP2_FLAG_END_STREAM
        if frame.hd.type == NGHTTP2_DATA or frame.hd.type == NGHTTP2_HEADERS:
            stream = self.streams.get(stream_id)
            if stream is None:
                return 0
            if frame.hd.type == NGHTTP2_HEADERS:
                self.header_of = 0
                fields, stream.fields = stream.fields, None
                # gRPC's clients send no trailers; what comes as such says nothing.
                if self.client or not stream.begun:
                    stream.begun = True
                    self.seen.append((HEADERS, stream_id, fields, ended))
            if ended:
                stream.remote_ended = True
                self.seen.append((END, stream_id, stream.prefix_got != 0 and not stream.dropping))
        elif frame.hd.type == NGHTTP2_PING:
            if frame.hd.flags & NGHTTP2_FLAG_ACK:
                self.seen.append((PONG, 0, PyBytes_FromStringAndSize(<const char*>frame.ping.opaque_data, 8)))
            else:
                self.seen.append((PING, 0))
        elif frame.hd.type == NGHTTP2_SETTINGS:
            if not frame.hd.flags & NGHTTP2_FLAG_ACK:
                self.seen.append((SETTINGS, 0))
        elif frame.hd.type == NGHTTP2_GOAWAY:
            words = PyBytes_FromStringAndSize(
                <const char*>frame.goaway.opaque_data, min(frame.goaway.opaque_data_len, 256)
            )
            self.seen.append((GOAWAY, frame.goaway.last_stream_id, frame.goaway.error_code, words))
        return 0

    cdef int on_sent(self, const nghttp2_frame *frame) except -1:
        """A server that has answered before the caller had said all wants to hear no more."""
        cdef _Stream stream
        if self.client or not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            return 0
        if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
            return 0
        stream = self.streams.get(frame.hd.stream_id)
        if stream is not None and not stream.remote_ended:
            self.check(nghttp2_submit_rst_stream(
                self.session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR
            ))
        return 0

    cdef int on_close(self, int32_t stream_id, uint32_t code) except -1:
        if self.streams.pop(stream_id, None) is not None:
            self.seen.append((CLOSED, stream_id, code))
        return 0

    cdef ssize_t on_read(self, int32_t stream_id, uint8_t *buffer, size_t room, uint32_t *flags) except -1:
        """Put as much of the waiting messages into a DATA frame as there is room for."""
        cdef _Stream stream = self.streams.get(stream_id)
        cdef nghttp2_nv filled[MOST_FIELDS]
        cdef size_t used = 0, more
        cdef Py_ssize_t size
        cdef bytes payload
        cdef bint compressed
        if stream is None:
            flags[0] |= NGHTTP2_DATA_FLAG_EOF
            return 0
        while stream.queue and used < room:
            compressed, payload = stream.queue[0]
            size = PyBytes_GET_SIZE(payload)
            while stream.sent < PREFIX and used < room:
                buffer[used] = compressed if stream.sent == 0 else (size >> (8 * (4 - stream.sent))) & 255
                used += 1
                stream.sent += 1
                stream.waiting -= 1
            more = min(room - used, <size_t>(PREFIX + size - stream.sent))
            if more and stream.sent >= PREFIX:
                memcpy(buffer + used, PyBytes_AS_STRING(payload) + (stream.sent - PREFIX), more)
                used += more
                stream.sent += more
                stream.waiting -= more
            if stream.sent == PREFIX + size:
                stream.queue.popleft()
                stream.sent = 0
        if stream.queue:
            return used
        if stream.ending:
            flags[0] |= NGHTTP2_DATA_FLAG_EOF
            if stream.trailers is not None:
                flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
                self.check(nghttp2_submit_trailer(
                    self.session, stream_id, filled, _filled(filled, stream.trailers)
                ))
            return used
        if used == 0:
            stream.deferred = True
            return NGHTTP2_ERR_DEFERRED
        self.seen.append((DRAINED, stream_id))
        return used


cdef _Stream _new_stream():
    cdef _Stream stream = _Stream.__new__(_Stream)
    stream.queue = deque()
    return stream


cdef int _failed(object connection, object error) noexcept:
    (<Connection>connection).error = error
    return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int _on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept:
    try:
        return (<Connection>user).on_begin_headers(frame)
    except BaseException as error:
        return _failed(<object>user, error)


cdef int _on_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size, const uint8_t *value,
    size_t value_size, uint8_t flags, void *user
) noexcept:
    try:
        return (<Connection>user).on_header(frame, name, name_size, value, value_size)
    except BaseException as error:
        return _failed(<object>user, error)


cdef int _on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept:
    try:
        return (<Connection>user).on_frame(frame)
    except BaseException as error:
        return _failed(<object>user, error)


cdef int _on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept:
    try:
        return (<Connection>user).on_sent(frame)
    except BaseException as error:
        return _failed(<object>user, error)


cdef int _on_data(
    nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t length, void *user
) noexcept:
    try:
        return (<Connection>user).on_data(stream_id, data, length)
    except BaseException as error:
        return _failed(<object>user, error)


cdef int _on_close(nghttp2_session *session, int32_t stream_id, uint32_t code, void *user) noexcept:
    try:
        return (<Connection>user).on_close(stream_id, code)
    except BaseException as error:
        return _failed(<object>user, error)


cdef ssize_t _on_read(
    nghttp2_session *session, int32_t stream_id, uint8_t *buffer, size_t room, uint32_t *flags,
    nghttp2_data_source *source, void *user
) noexcept:
    try:
        return (<Connection>user).on_read(stream_id, buffer, room, flags)
    except BaseException as error:
        return _failed(<object>user, error)


cdef nghttp2_session_callbacks *_callbacks() except NULL:
    """Made once for the life of the process."""
    cdef nghttp2_session_callbacks *made
    if nghttp2_session_callbacks_new(&made):
        raise MemoryError
    nghttp2_session_callbacks_set_on_begin_headers_callback(made, _on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(made, _on_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(made, _on_frame)
    nghttp2_session_callbacks_set_on_frame_send_callback(made, _on_sent)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, _on_data)
    nghttp2_session_callbacks_set_on_stream_close_callback(made, _on_close)
    return made


cdef nghttp2_session_callbacks *CALLBACKS = _callbacks()
