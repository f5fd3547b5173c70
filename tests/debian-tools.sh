#!/usr/bin/env bash
# What tests use of Debian's packages, where apt-get is there: chromium (the live page), promtool (deploy/grafana), nginx
# (a target of bench) and libfaketime (jumps of the clock).
# Where one cannot be had, its tests are skipped and say so; this never fails.
# Usage: debian-tools.sh FOLDER_FOR_PROGRAMS
set -uo pipefail
programs=$(realpath "$1")

updated=
update() { # the package lists of a fresh machine are empty
	[ -n "$updated" ] || [ "$(id -u)" != 0 ] || apt-get update -qq >/dev/null 2>&1
	updated=yes
}

install_chromium() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && update &&
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null 2>&1
}

# Taken out of its package: installing prometheus or nginx would start a server.
# Usage: fetch PACKAGE END_OF_A_PATH_IN_IT
fetch() {
	command -v apt-get dpkg-deb >/dev/null || return
	local folder
	folder=$(mktemp -d) || return
	(
		cd "$folder" || exit
		apt-get download -qq "$1" >/dev/null 2>&1 || { update && apt-get download -qq "$1" >/dev/null 2>&1; } || exit
		dpkg-deb -x "$1"_*.deb . && find . -path "*/$2" -exec cp {} "$programs/" \; && [ -e "$programs/${2##*/}" ]
	)
	local result=$?
	rm -rf "$folder"
	return $result
}

command -v chromium >/dev/null || install_chromium || echo "no chromium, and no way to install it: the live page's tests will be skipped" >&2
PATH="$PATH:$programs" command -v promtool >/dev/null || fetch prometheus promtool ||
	echo "no promtool, and no way to fetch it: the tests of deploy/grafana will be skipped" >&2
PATH="$PATH:/usr/sbin:$programs" command -v nginx >/dev/null || fetch nginx sbin/nginx ||
	echo "no nginx, and no way to fetch it: the tests of bench's target nginx will be skipped" >&2
[ -e "$programs/libfaketimeMT.so.1" ] || fetch libfaketime libfaketimeMT.so.1 ||
	echo "no libfaketime, and no way to fetch it: the test of clocks that jump will be skipped" >&2
exit 0
