"""nginx with `grpc_pass` before Triton."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import psutil

from bench.targets.server_process import free_addresses, server_process, wait_until_ready
from bench.targets.target import Target
from bench.targets.triton import triton

NGINX: Final = "nginx"
# One worker and long-lived upstream connections: as cheap as it gets. Each request at Triton takes a connection of its
# own, for nginx puts no two onto one; a flood has thousands.
NGINX_CONFIG: Final = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
error_log stderr warn;
pid {scratch}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    client_max_body_size 0;
    keepalive_requests 100000000;
    upstream triton {{ server {upstream}; keepalive 4096; keepalive_requests 100000000; }}
    server {{
        listen {listen} http2;
        http2_max_concurrent_streams 4096;
        location / {{ grpc_pass grpc://triton; grpc_read_timeout 600s; grpc_send_timeout 600s; }}
    }}
}}
"""


def nginx_path() -> str | None:
    """Where nginx is: in PATH, in /usr/sbin, which not everybody has there, or beside this Python; None: nowhere."""
    return shutil.which(NGINX) or shutil.which(NGINX, path=f"/usr/sbin{os.pathsep}{Path(sys.executable).parent}")


@asynccontextmanager
async def nginx(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
    """Nginx with `grpc_pass` before Triton.

    Raises:
        TargetError: it did not start.
    """
    async with triton(model_repository, log=log) as behind:
        (listen,) = free_addresses(1)
        scratch = log.with_suffix(".nginx").absolute()
        scratch.mkdir(parents=True, exist_ok=True)
        config = scratch / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(scratch=scratch, upstream=behind.grpc, listen=listen))
        hop_log = log.with_suffix(".nginx.log")
        command = (nginx_path() or NGINX, "-c", str(config), "-e", "stderr")
        async with server_process(command, hop_log) as process:
            await wait_until_ready(process, lambda: _connects(listen), hop_log)
            (worker,) = psutil.Process(process.pid).children()
            yield Target(grpc=listen, hop_pid=worker.pid)


async def _connects(address: str) -> bool | None:
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), 1.0)
        except TimeoutError:
            return None
        return True
