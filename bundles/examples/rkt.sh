#!/bin/sh
# Makes a bundle of an App Container image, as rkt had them: rkt.sh FOLDER, which must not exist. The rest is as in hello.sh.
set -eu
folder=${1:?usage: rkt.sh FOLDER}
program=${FLINT_BUNDLE:-flint-bundle}
busybox=${BUSYBOX:-/bin/busybox}

mkdir -p "$folder/aci/rootfs/bin"
cp "$busybox" "$folder/aci/rootfs/bin/busybox"
ln -s busybox "$folder/aci/rootfs/bin/sh"
cat > "$folder/aci/manifest" <<'JSON'
{"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/hello",
 "labels": [{"name": "version", "value": "1.0.0"}, {"name": "os", "value": "linux"}],
 "app": {"exec": ["/bin/sh", "-c", "echo hello from rkt"], "user": "0", "group": "0"}}
JSON
tar -C "$folder/aci" -czf "$folder/hello.aci" manifest rootfs

"$program" --root "$folder/store" --quiet import "$folder/hello.aci"
"$program" --root "$folder/store" --quiet create example.com/hello:1.0.0 "$folder/bundle"
