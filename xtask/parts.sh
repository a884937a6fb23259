#!/bin/sh
# Puts programs of Debian's next release into target/parts, without installing them: parts.sh PACKAGE PROGRAM...
set -eu
parts=$PWD/target/parts
mkdir -p "$parts/apt/lists/partial" "$parts/apt/cache/archives/partial"
entry=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)
archive=$(printf '%s\n' "$entry" | sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' | grep -v security | head -n 1)
[ -n "$archive" ] || { echo "this host names no Debian archive in its apt sources" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $archive trixie main" > "$parts/apt/sources.list"
apt() {
    apt-get -qq -o "Dir::Etc::sourcelist=$parts/apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o "Dir::State::lists=$parts/apt/lists" -o "Dir::Cache=$parts/apt/cache" -o APT::Sandbox::User=root "$@"
}
for package in "$@"; do
    [ ! -e "$parts/have-$package" ] || continue
    [ -e "$parts/apt/updated" ] || { apt update && touch "$parts/apt/updated"; }
    (cd "$parts" && rm -f "$package"_*.deb && apt download "$package" && dpkg -x "$package"_*.deb . && rm "$package"_*.deb)
    touch "$parts/have-$package"
done
