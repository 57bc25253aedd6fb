#!/bin/sh
# Makes a bundle of a root filesystem with nothing but busybox: hello.sh FOLDER, which must not exist.
#
# FLINT_BUNDLE is the program (flint-bundle of PATH), BUSYBOX a static busybox (/bin/busybox). The store is in FOLDER/store, so that
# the example leaves nothing elsewhere. `flint run --bundle FOLDER/bundle hello` runs it then.
set -eu
folder=${1:?usage: hello.sh FOLDER}
program=${FLINT_BUNDLE:-flint-bundle}
busybox=${BUSYBOX:-/bin/busybox}

mkdir -p "$folder/rootfs/bin" "$folder/rootfs/etc"
cp "$busybox" "$folder/rootfs/bin/busybox"
ln -s busybox "$folder/rootfs/bin/sh"
echo 'root:x:0:0::/:/bin/sh' > "$folder/rootfs/etc/passwd"
echo 'root:x:0:' > "$folder/rootfs/etc/group"

"$program" --root "$folder/store" --quiet import "$folder/rootfs" localhost/hello:1
"$program" --root "$folder/store" --quiet create --env GREETING=hello localhost/hello:1 "$folder/bundle" -- \
    /bin/sh -c 'echo $GREETING from $(hostname)'
