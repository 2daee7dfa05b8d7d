package main

import "strings"

// Scripts that several ways need.
const (
	// daemonStart starts a containerd of the way's own; its process id stands in $W/daemon.
	daemonStart = `mkdir -p "$W/ctd"
printf 'version = 2\nroot = "%s/root"\nstate = "%s/state"\n[grpc]\naddress = "%s/s"\n' "$W/ctd" "$W/ctd" "$W/ctd" >"$W/ctd/c.toml"
setsid "$CONTAINERD" -c "$W/ctd/c.toml" -l fatal </dev/null >"$W/ctd/log" 2>&1 & echo $! >"$W/daemon"
for i in $(seq 200); do "$CTR" -a "$W/ctd/s" version >/dev/null 2>&1 && exit 0; sleep 0.1; done
tail -c 200 "$W/ctd/log"; exit 1`
	// daemonEnd ends it, if there is one, and forgets what it had. It may stay a zombie where process 1 reaps late.
	daemonEnd = `[ -e "$W/daemon" ] || exit 0
p=$(cat "$W/daemon"); kill "$p" || :
for i in $(seq 200); do readlink "/proc/$p/exe" >/dev/null || break; sleep 0.05; done
rm "$W/daemon"`
	ctrImport    = `tar -C "$L" -c blobs index.json oci-layout | "$CTR" -a "$W/ctd/s" image import --snapshotter overlayfs --base-name localhost/bench - >/dev/null`
	forgetBlobs  = `rm -rf /var/lib/containers/cache` // where skopeo and podman remember which registry has what
	forgetLayers = `rm -rf "$STORE"/layers/*`
)

// Command lines of podman, buildah and ctr: with a place for all samples, and with one of each sample's own.
const (
	podmanKept  = `$PODMAN --root $W/root --runroot $W/run --tmpdir $W/tmp --storage-driver overlay --cgroup-manager cgroupfs --events-backend none `
	podmanNew   = `$PODMAN --root $S/root --runroot $S/run --tmpdir $S/tmp --storage-driver overlay --cgroup-manager cgroupfs --events-backend none `
	buildahKept = `$BUILDAH --root $W/root --runroot $W/run --storage-driver overlay `
	podmanHas   = podmanKept + `pull -q "oci:$L:bench" >"$W/id"; ` + podmanKept + `tag "$(cat "$W/id")" localhost/bench:bench`
	buildahHas  = buildahKept + `pull -q "oci:$L:bench" >"$W/id"`
	ctr         = `$CTR -a $W/ctd/s `
	self        = `$SELF ` + imageProgram + ` `
)

// words are commands, one a string, as lists of their words.
func words(lines ...string) (list [][]string) {
	for _, l := range lines {
		list = append(list, strings.Fields(l))
	}
	return list
}

// script is one command for bash.
func script(s string) [][]string { return [][]string{{"bash", "-euo", "pipefail", "-c", s}} }

// unpackTask measures what images are for.
func unpackTask(goals []imageGoal) imageTask {
	return imageTask{name: "unpack", about: "from blobs on this machine to directories of files", goals: goals, ways: []imageWay{
		{name: "caisson", about: "Store.Unpack in a process of its own, blobs in the store", kind: kindOwn, before: []string{forgetLayers}, run: words(self + "unpack $STORE")},
		{name: "decompressor | tar", about: "pigz or zstd piped into tar -x, one layer after another", kind: kindBound, needs: []string{"PIGZ_PROGRAM", "ZSTD", "TAR"},
			run: script(`for b in $BLOBS; do $DECOMPRESS <"$L/blobs/sha256/$b" | "$TAR" -x --xattrs -C "$S" -f -; done`)},
		{name: "umoci", about: "umoci unpack", kind: kindPeer, needs: []string{"UMOCI"}, run: words("$UMOCI unpack --image $L:bench $S/bundle")},
		{name: "skopeo + umoci", about: "skopeo copy into a layout, umoci unpack", kind: kindPeer, needs: []string{"SKOPEO", "UMOCI"},
			run: words("$SKOPEO --insecure-policy copy -q oci:$L:bench oci:$S/layout:bench", "$UMOCI unpack --image $S/layout:bench $S/bundle")},
		{name: "podman", about: "podman pull of the layout into a store of its own, as podman load does with an archive of it", kind: kindPeer, needs: []string{"PODMAN"}, run: words(podmanNew + "pull -q oci:$L:bench")},
		{name: "ctr", about: "ctr image import into a containerd of its own, which unpacks", kind: kindPeer, needs: []string{"CONTAINERD", "CTR"},
			before: []string{daemonStart}, after: []string{daemonEnd}, run: script(ctrImport)},
	}}
}

// igzipWay is for layers that are gzip.
var igzipWay = imageWay{name: "caisson with igzip", about: "Store.Unpack with UnpackOptions.Igzip", kind: kindMore, needs: []string{"IGZIP"}, before: []string{forgetLayers}, run: words(self + "unpack-igzip $STORE")}

// erofsWay makes files that the kernel mounts instead of directories.
var erofsWay = imageWay{name: "caisson EROFS", about: "Store.Unpack with UnpackOptions.EROFS: a file of each layer", kind: kindMore, before: []string{forgetLayers}, run: words(self + "unpack-erofs $STORE")}

// transferTasks move an image from one place to another as it is.
func transferTasks() []imageTask {
	return []imageTask{
		{name: "pull", about: "from a registry on a loopback address, verified, not unpacked", goals: []imageGoal{{kindBound, 1.3}, {"MiB", 128}}, ways: []imageWay{
			{name: "caisson", about: "Store.Pull into an empty store", kind: kindOwn, needs: []string{"REGISTRY"}, run: words(self + "pull $S/store $REF")},
			{name: "curl + sha256sum + sync", about: "all layers at once, in files that are synced", kind: kindBound, needs: []string{"REGISTRY", "CURL"},
				run: script(`for b in $BLOBS; do { "$CURL" -sSf "http://$R/v2/bench/blobs/sha256:$b" | tee "$S/$b" | sha256sum | grep -q "^$b"; sync "$S/$b"; } & p="${p:-} $!"; done; for i in $p; do wait "$i"; done`)},
			{name: "skopeo", about: "skopeo copy into a layout", kind: kindPeer, needs: []string{"REGISTRY", "SKOPEO"}, before: []string{forgetBlobs},
				run: words("$SKOPEO --insecure-policy copy -q --src-tls-verify=false docker://$REF oci:$S/layout:bench")},
			{name: "ctr", about: "ctr content fetch into an empty containerd", kind: kindPeer, needs: []string{"REGISTRY", "CONTAINERD", "CTR"},
				before: []string{daemonStart}, after: []string{daemonEnd}, run: words(ctr + "content fetch --plain-http $REF")},
		}},
		{name: "pull and unpack", about: "from a registry on a loopback address to directories of files", ways: []imageWay{
			{name: "caisson", about: "Store.Pull and Store.Unpack", kind: kindOwn, needs: []string{"REGISTRY"}, run: words(self + "pull-unpack $S/store $REF")},
			{name: "podman", about: "podman pull", kind: kindPeer, needs: []string{"REGISTRY", "PODMAN"}, before: []string{forgetBlobs}, run: words(podmanNew + "pull -q --tls-verify=false $REF")},
			{name: "ctr", about: "ctr image pull into an empty containerd", kind: kindPeer, needs: []string{"REGISTRY", "CONTAINERD", "CTR"},
				before: []string{daemonStart}, after: []string{daemonEnd}, run: words(ctr + "image pull --plain-http --snapshotter overlayfs $REF")},
		}},
		{name: "push", about: "to a new repository of a registry on a loopback address", ways: []imageWay{
			{name: "caisson", about: "Store.Push", kind: kindOwn, needs: []string{"REGISTRY"}, run: words(self + "push $STORE $R/n$N:bench")},
			{name: "skopeo", about: "skopeo copy of a layout", kind: kindPeer, needs: []string{"REGISTRY", "SKOPEO"}, before: []string{forgetBlobs},
				run: words("$SKOPEO --insecure-policy copy -q --dest-tls-verify=false oci:$L:bench docker://$R/n$N:bench")},
			{name: "ctr", about: "ctr image push", kind: kindPeer, needs: []string{"REGISTRY", "CONTAINERD", "CTR"}, ready: []string{daemonStart, ctrImport},
				run: words(ctr + "image push --plain-http $R/n$N:bench localhost/bench:bench")},
			{name: "podman", about: "podman push, which compresses again", kind: kindMore, needs: []string{"REGISTRY", "PODMAN"}, ready: []string{podmanHas}, before: []string{forgetBlobs},
				run: words(podmanKept + "push -q --tls-verify=false localhost/bench:bench docker://$R/n$N:bench")},
		}},
		{name: "save", about: "into one archive", ways: []imageWay{
			{name: "caisson", about: "Store.Save", kind: kindOwn, run: words(self + "save $STORE $S/archive")},
			{name: "skopeo", about: "skopeo copy into an oci-archive", kind: kindPeer, needs: []string{"SKOPEO"}, run: words("$SKOPEO --insecure-policy copy -q oci:$L:bench oci-archive:$S/archive:bench")},
			{name: "ctr", about: "ctr image export", kind: kindPeer, needs: []string{"CONTAINERD", "CTR"}, ready: []string{daemonStart, ctrImport}, run: words(ctr + "image export $S/archive localhost/bench:bench")},
			{name: "podman", about: "podman save, whose layers are not compressed", kind: kindMore, needs: []string{"PODMAN"}, ready: []string{podmanHas}, run: words(podmanKept + "save -q --format oci-archive -o $S/archive localhost/bench:bench")},
		}},
		{name: "load", about: "out of one archive, not unpacked", ways: []imageWay{
			{name: "caisson", about: "Store.Load", kind: kindOwn, run: words(self + "load $S/store $ARCHIVE")},
			{name: "skopeo", about: "skopeo copy of an oci-archive into a layout", kind: kindPeer, needs: []string{"SKOPEO"}, run: words("$SKOPEO --insecure-policy copy -q oci-archive:$ARCHIVE oci:$S/layout:bench")},
			{name: "ctr", about: "ctr image import --no-unpack", kind: kindPeer, needs: []string{"CONTAINERD", "CTR"}, before: []string{daemonStart}, after: []string{daemonEnd},
				run: words(ctr + "image import --no-unpack --base-name localhost/bench $ARCHIVE")},
		}},
	}
}

// changeTasks make a layer of what was changed in a tree of the image.
func changeTasks() []imageTask {
	const change = `cp -r "$CHANGES" "$at/changes"`
	return []imageTask{
		{name: "commit", about: "of what an overlay holds, 2,000 new files of 32 MB in all", ways: []imageWay{
			{name: "caisson", about: "UpperLayer and Store.Write, gzip", kind: kindOwn, ready: []string{`at=$(` + self + `changed "$STORE" s$N); ` + change + `; echo s$N >"$W/name"`},
				run: script(`"$SELF" ` + imageProgram + ` commit "$STORE" "$(cat "$W/name")" c$N gzip`)},
			{name: "ctr", about: "ctr snapshot diff: the layer alone, gzip", kind: kindPeer, needs: []string{"CONTAINERD", "CTR"},
				ready: []string{daemonStart, ctrImport, `parent=$("$CTR" -a "$W/ctd/s" snapshot ls | awk '$3 == "Committed" { parents[$2] = 1; keys[$1] = 1 } END { for (k in keys) if (!(k in parents)) print k }')
mkdir "$W/at"; at=$W/at; "$CTR" -a "$W/ctd/s" snapshot prepare --target "$W/at" changed "$parent" >"$W/mount"; bash "$W/mount"; ` + change + `; umount "$W/at"`},
				run: script(`"$CTR" -a "$W/ctd/s" snapshot diff --keep=false changed >"$S/layer"`)},
			{name: "caisson uncompressed", about: "the same with CompressNone", kind: kindMore, ready: []string{`at=$(` + self + `changed "$STORE" s$N); ` + change + `; echo s$N >"$W/name"`},
				run: script(`"$SELF" ` + imageProgram + ` commit "$STORE" "$(cat "$W/name")" c$N plain`)},
			{name: "buildah", about: "buildah commit, not compressed", kind: kindMore, needs: []string{"BUILDAH"},
				ready: []string{buildahHas, buildahKept + `from --name changed "$(cat "$W/id")"; at=$(` + buildahKept + `mount changed); ` + change + `; ` + buildahKept + `umount changed`},
				run:   words(buildahKept + "commit -q changed localhost/c$N")},
		}},
		{name: "diff", about: "the whole tree is looked through for 2,000 new files of 32 MB in all", ways: []imageWay{
			{name: "caisson", about: "DiffLayer and Store.Write, gzip", kind: kindOwn, ready: []string{`mkdir "$W/tree"; ` + self + `unpack "$STORE"; ` + self + `extract "$STORE" "$W/tree"; at=$W/tree; ` + change}, run: words(self + "diff $STORE $W/tree d$N")},
			{name: "umoci", about: "umoci repack, gzip", kind: kindPeer, needs: []string{"UMOCI"},
				ready: []string{`cp -r "$L" "$W/layout"; "$UMOCI" unpack --image "$W/layout:bench" "$W/bundle"; at=$W/bundle/rootfs; ` + change}, run: words("$UMOCI repack --image $W/layout:d$N $W/bundle")},
		}},
	}
}

// snapshotTask measures a root filesystem for one more container.
func snapshotTask() imageTask {
	return imageTask{name: "snapshot", about: "one more root filesystem of an unpacked image, made by a program that ends then", ways: []imageWay{
		{name: "caisson", about: "Store.NewSnapshot, safe from power cuts when it returns", kind: kindOwn, ready: []string{self + `unpack "$STORE"`}, run: words(self + "snapshot $STORE n$N")},
		{name: "caisson in the program", about: "the same without the start of a program, median of 50", kind: kindMore, reports: true, run: words(self + "snapshots $STORE 50")},
		{name: "ctr", about: "ctr snapshot prepare", kind: kindPeer, needs: []string{"CONTAINERD", "CTR"}, ready: []string{daemonStart, ctrImport, `"$CTR" -a "$W/ctd/s" snapshot ls | awk '$3 == "Committed" { parents[$2] = 1; keys[$1] = 1 } END { for (k in keys) if (!(k in parents)) print k }' >"$W/parent"`},
			before: []string{`cp "$W/parent" "$S/parent"`}, run: script(`"$CTR" -a "$W/ctd/s" snapshot prepare n$N "$(cat "$S/parent")"`)},
		{name: "buildah", about: "buildah from", kind: kindPeer, needs: []string{"BUILDAH"}, ready: []string{buildahHas}, run: script(buildahKept + `from -q "$(cat "$W/id")"`)},
		{name: "podman", about: "podman create", kind: kindPeer, needs: []string{"PODMAN"}, ready: []string{podmanHas}, run: words(podmanKept + "create -q --network none localhost/bench:bench true")},
	}}
}

// rebuildTask measures a build in which nothing changed.
func rebuildTask() imageTask {
	const buildahBud = buildahKept + "bud -q --layers --isolation chroot --pull=never -t localhost/service "
	return imageTask{name: "rebuild", about: "the Dockerfile of a small service, built before, nothing changed", goals: []imageGoal{{"ms", 150}}, ways: []imageWay{
		{name: "caisson", about: "examples/build", kind: kindOwn, needs: []string{"BUILD"}, ready: []string{`"$BUILD" -q -store "$SMALL" -network none -t localhost/service "$SERVICE"`},
			run: words("$BUILD -q -store $SMALL -network none -t localhost/service $SERVICE")},
		{name: "buildah", about: "buildah bud --layers", kind: kindPeer, needs: []string{"BUILDAH"},
			ready: []string{buildahKept + `pull -q "oci-archive:$BASE" >"$W/id"; ` + buildahKept + `tag "$(cat "$W/id")" localhost/base:1; ` + strings.ReplaceAll(buildahBud, "$N", "0") + `"$SERVICE"`}, run: words(buildahBud + "$SERVICE")},
	}}
}
