package image

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// mark is layers/KEY/layer.json: it is written when a layer is complete, and says what is in it.
type mark struct {
	DiffID  string `json:"diffID"`
	Boot    string `json:"boot"`             // the start of the machine in which it was unpacked
	Durable bool   `json:"durable"`          // it was synced since
	Bytes   int64  `json:"bytes"`            // contents of files
	Entries int64  `json:"entries"`          // without whiteouts
	Hides   bool   `json:"hides,omitempty"`  // it has an opaque marker for the root: nothing below it is seen
	Root    bool   `json:"root,omitempty"`   // it has an entry for the root directory
	Mode    uint32 `json:"mode"`             // of the root directory
	Owners  int64  `json:"owners,omitempty"` // entries that did not get their owner, for want of privilege
	Devices int64  `json:"devices,omitempty"`
	Xattrs  int64  `json:"xattrs,omitempty"`

	Whiteouts  int64    `json:"whiteouts,omitempty"`
	Implied    []string `json:"implied,omitempty"` // directories that no entry stands for
	inherited  map[string]inherited
	closed     int64 // of the implied ones, those that the caller may not look up below
	acls       bool  // directories have their default access lists by now
	RootOpaque bool  `json:"-"`
	RootSet    bool  `json:"-"`

	Blob *blobMark `json:"blob,omitempty"` // the layer is a file of EROFS
}

const fileMark = "layer.json"

// dirTree is the directory of an unpacked layer in which its files are.
const dirTree = "fs"

// UnpackOptions say how an image is unpacked. The zero value is the default.
type UnpackOptions struct {
	// Platform chooses from an index. Default: that of this machine.
	Platform *ocispec.Platform
	// Durable waits until what was unpacked is on disk. Without it a layer that was unpacked shortly before a crash of the machine is
	// unpacked again when it is needed next; the blobs that it comes from are durable in any case.
	Durable bool
	// Progress is told how far each layer is, by several goroutines at once. It may be nil.
	Progress func(Progress)
	// Igzip lets the program igzip, which is looked for in PATH (package isal of Debian, Ubuntu and Fedora), decompress layers that are
	// gzip; it takes about half the time. What it gives is hashed and bounded by [Limits] as ever, and a broken layer is the same error. It is a
	// program in C that reads what a stranger wrote, with the rights of this one, and its memory is not counted in Limits.Memory:
	// hence it is never used unasked. It gets the blob by a pipe, no environment and no files, and ends with the context. Without the program the error is
	// [exec.ErrNotFound]. What it makes of a layer is not decoded again but for the error where the layer is broken, and whole, in Go, where the program is
	// one that takes no more than the first member of a gzip stream: the time is lost then.
	Igzip bool
	// EROFS makes of each layer one file, which the kernel mounts, instead of a directory; see [Source.EROFS]. Making it takes no privilege, and owners,
	// devices and capabilities are in it whoever makes it. What a layer has besides contents is held in memory until it is complete: some 700 bytes of
	// Limits.Memory for a file. Layers that are both directories and files of EROFS are kept twice. [Store.Extract] does not look at it.
	EROFS bool
	// plain leaves files to the caller, whatever the policy is.
	plain bool
}

// Progress is how far a layer is.
type Progress struct {
	// Digest is the blob, and Total its size.
	Digest digest.Digest
	Total  int64
	// Done is how many bytes of it are done; Total at the end.
	Done int64
	// Cached says that there was nothing to do.
	Cached bool
}

// Unpacked is an image whose layers are directories, or files of EROFS.
type Unpacked struct {
	*Info
	// Dirs are the layers, the topmost first, as overlayfs takes them; an empty image has none. They belong to the store: never change
	// them. They stay as long as the image does.
	Dirs []string
	// Blobs are the layers as files of EROFS, the topmost first, where [UnpackOptions].EROFS asked for them. Dirs is empty then.
	Blobs []string
	// Notes say what could not be made as the image has it, a sentence each.
	Notes []string

	keys     []string
	marks    []*blobMark // of Blobs
	rootMode uint32
	xattrs   int64 // left out
}

// Unpack makes a directory of each layer of an image, as overlayfs takes them: a deleted file is a character device 0/0, an opaque directory has the attribute
// trusted.overlay.opaque or user.overlay.opaque. Layers that are unpacked already, for this image or another, by this program or
// another, are used as they are. The content of every layer is compared with the digest that the config gives (its diff ID).
//
// An ordinary user owns all files itself, cannot make devices nor set file capabilities; Notes tells what was left out.
//
// Whatever fails, the store is as it was before. The error names layer and entry.
func (s *Store) Unpack(ctx context.Context, name string, o UnpackOptions) (*Unpacked, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	u, err := s.unpack(ctx, name, o)
	if err != nil {
		return nil, fail("unpack", name, err)
	}
	return u, nil
}

// unpack is Unpack for callers that hold the lock.
func (s *Store) unpack(ctx context.Context, name string, o UnpackOptions) (*Unpacked, error) {
	info, err := s.inspect(name, o.Platform)
	if err != nil {
		return nil, err
	}
	return s.unpackInfo(ctx, info, o)
}

// unpackInfo is unpack for an image that was found.
func (s *Store) unpackInfo(ctx context.Context, info *Info, o UnpackOptions) (*Unpacked, error) {
	o.plain = o.plain || o.EROFS
	for _, l := range info.Layers {
		if !isLayer(l.MediaType) {
			return nil, &Error{Op: "unpack", Object: info.Name, Layer: l.Digest, Err: because(ErrMediaType, "%s", shown(l.MediaType))}
		}
	}
	marks, keys, err := s.unpackLayers(ctx, info, o)
	if err != nil {
		return nil, err
	}
	if o.Durable {
		if err := s.sync(keys, marks); err != nil {
			return nil, err
		}
	}
	u := s.stack(info, keys, marks, !o.plain && !s.maps.IsZero())
	if s.shortfall != nil && !o.EROFS {
		u.Notes = append(u.Notes, "Files belong to the caller instead of subordinate ids: "+s.shortfall.Error()+".")
	}
	return u, nil
}

// unpackLayers unpacks the layers that are missing, several at once, and returns their marks and the names of their directories.
func (s *Store) unpackLayers(ctx context.Context, info *Info, o UnpackOptions) ([]*mark, []string, error) {
	if s.limits.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.limits.Time, &LimitError{Limit: "Time", Max: int64(s.limits.Time)})
		defer cancel()
	}
	program, err := findIgzip(o.Igzip)
	if err != nil {
		return nil, nil, err
	}
	b := &budget{limits: s.limits}
	gifts := s.newGiver(ctx, o.plain)
	defer gifts.close()
	memory := newMemory(s.limits.Memory)
	marks := make([]*mark, len(info.Layers))
	first := map[string]int{} // an image may have the same layer twice
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(int(s.limits.Parallel))
	for i, l := range info.Layers {
		id := info.Config.DiffIDs[i]
		if _, twice := first[id]; twice {
			continue
		}
		first[id] = i
		job := &layerJob{s: s, desc: l, diffID: digest.Digest(id), budget: b, memory: memory, giver: gifts, igzip: program, erofs: o.EROFS, progress: o.Progress}
		key := s.layerKey(job.diffID, o)
		if m, err := s.readMark(key); err == nil && b.addImplied(m) == nil { // as it is for each container but the first
			job.tell(l.Size, true)
			marks[i] = m
			continue
		}
		g.Go(func() (err error) {
			if marks[i], err = job.run(gctx, key); err == nil {
				err = b.addImplied(marks[i])
			}
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return layerError(l.Digest, err)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i := range marks {
		marks[i] = marks[first[info.Config.DiffIDs[i]]]
	}
	keys, err := s.inherit(ctx, info, marks, o, gifts, func(i int, key string, from map[string]inherited) (*mark, error) {
		job := &layerJob{s: s, desc: info.Layers[i], diffID: digest.Digest(info.Config.DiffIDs[i]), inherited: from,
			budget: &budget{limits: s.limits}, memory: memory, giver: gifts, igzip: program, erofs: o.EROFS}
		m, err := job.run(ctx, key)
		return m, layerError(info.Layers[i].Digest, err)
	})
	return marks, keys, err
}

// layerError names the layer.
func layerError(d digest.Digest, err error) error {
	if err == nil {
		return nil
	}
	if parts := joined(err); parts != nil {
		return joinedBy(parts, func(e error) error { return layerError(d, e) })
	}
	var e *Error
	if errors.As(err, &e) {
		named := *e
		named.Layer = d
		return &named
	}
	return &Error{Op: "unpack", Layer: d, Err: underlying(err)}
}

// stack arranges unpacked layers, the topmost first. Nothing is seen through a layer that hides the root.
func (s *Store) stack(info *Info, keys []string, marks []*mark, mapped bool) *Unpacked {
	u := &Unpacked{Info: info, rootMode: 0o755}
	var owners, devices, xattrs, closed int64
	rootKnown := false
	seen := map[string]bool{}
	for i := len(marks) - 1; i >= 0; i-- {
		m, key := marks[i], keys[i]
		if m.Entries == 0 && m.Whiteouts == 0 {
			continue
		}
		if m.Root && !rootKnown {
			u.rootMode, rootKnown = m.Mode, true
		}
		owners, devices, xattrs, closed = owners+m.Owners, devices+m.Devices, xattrs+m.Xattrs, closed+m.closed
		if !seen[key] { // overlayfs refuses a directory twice; the upper occurrence hides what the lower one has
			if m.Blob != nil {
				u.Blobs, u.marks = append(u.Blobs, s.layerDir(key)), append(u.marks, m.Blob)
			} else {
				u.Dirs = append(u.Dirs, s.layerDir(key))
			}
			u.keys = append(u.keys, key)
		}
		seen[key] = true
		if m.Hides {
			break
		}
	}
	u.xattrs, u.Notes = xattrs, (&mark{Owners: owners, Devices: devices, Xattrs: xattrs, closed: closed}).notes(mapped)
	return u
}

// notes says what was left out; mapped ones gave files to subordinate ids.
func (m *mark) notes(mapped bool) (out []string) {
	note := func(n int64, what string) {
		if n > 0 {
			out = append(out, strconv.FormatInt(n, 10)+" "+what)
		}
	}
	if mapped {
		note(m.Owners, "files belong to the caller instead of their owners in the image, for whom the caller has no subordinate ids.")
	} else {
		note(m.Owners, "files belong to the caller instead of their owners in the image: only root can give files away.")
	}
	note(m.Devices, "device nodes were left out.")
	note(m.Xattrs, "extended attributes were left out.")
	note(m.closed, "directories that layers have no entries for belong to root and have mode 0755: the lower layers' are in directories that are closed to the caller.")
	return out
}

// layerKey names the directory of an unpacked layer: what is in it depends on the layer, on the policy, on the caller's subordinate ids, and on
// whether the caller was privileged, which goes with the store, as that belongs to one user.
func (s *Store) layerKey(diffID digest.Digest, o UnpackOptions) string {
	key := diffID.Encoded()
	if s.policy.NoSetuid {
		key += "-nosetuid"
	}
	switch s.policy.Devices {
	case DevicesSkipped:
		key += "-nodev"
	case DevicesRefused: // what another made would not be looked at any more
		key += "-refusedev"
	}
	if s.policy.AnyNames {
		key += "-anynames"
	}
	if !o.plain && !s.maps.IsZero() {
		key += ownersKey(s.maps)
	}
	if o.EROFS {
		key += erofsKey
	}
	return key
}

// layerDir is the directory of an unpacked layer, or its file of EROFS.
func (s *Store) layerDir(key string) string {
	if isBlobKey(key) {
		return s.path(filepath.Join(dirLayers, key, fileBlob))
	}
	return s.path(filepath.Join(dirLayers, key, dirTree))
}

// readMark returns the mark of a complete layer. One that was unpacked before the last start of the machine and not synced may
// have lost content, and counts as not there.
func (s *Store) readMark(key string) (*mark, error) {
	data, err := readBounded(s.path(filepath.Join(dirLayers, key, fileMark)), maxIndexFile)
	if err != nil {
		return nil, err
	}
	var m mark
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, because(ErrCorrupt, "%s of layer %s: %v", fileMark, key, err)
	}
	if !m.Durable && m.Boot != s.boot {
		return nil, ErrNotFound
	}
	return &m, nil
}

// sync makes unpacked layers durable and notes that they are.
func (s *Store) sync(keys []string, marks []*mark) error {
	need := false
	for _, m := range marks {
		need = need || !m.Durable
	}
	if !need {
		return nil
	}
	if err := syncFS(s.path(dirLayers)); err != nil {
		return err
	}
	for i, m := range marks {
		if m.Durable {
			continue
		}
		m.Durable = true
		data, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if err := s.replaceFile(filepath.Join(dirLayers, keys[i], fileMark), data); err != nil {
			return err
		}
	}
	return nil
}

// layerJob unpacks one layer into the store.
type layerJob struct {
	s        *Store
	desc     ocispec.Descriptor
	diffID   digest.Digest
	budget   *budget
	memory   *memory
	giver    *giver
	igzip    string // the program, where it is wanted
	erofs    bool   // a file is made, not a directory
	progress func(Progress)
	// inherited is what directories without an entry get; see inherit.
	inherited map[string]inherited
}

// treeOptions say how a layer becomes a tree.
type treeOptions struct {
	flat      bool // whiteouts remove files that are there, instead of being written
	giver     *giver
	inherited map[string]inherited
	notes     *notes
}

func (j *layerJob) tell(done int64, cached bool) {
	if j.progress != nil {
		j.progress(Progress{Digest: j.desc.Digest, Total: j.desc.Size, Done: done, Cached: cached})
	}
}

// run returns the mark of the layer, which it unpacks if it is not there. One process at a time unpacks a layer; others wait and
// find it.
func (j *layerJob) run(ctx context.Context, key string) (*mark, error) {
	m, err := j.s.readMark(key)
	if err == nil {
		j.tell(j.desc.Size, true)
		return m, nil
	}
	lock, err := lockFile(ctx, j.s.path(dirIngest+"/layer-"+key), true)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if m, err = j.s.readMark(key); err == nil {
		j.tell(j.desc.Size, true)
		return m, nil
	}
	work, m, err := j.unpack(ctx, false)
	if errors.Is(err, errMemoryBusy) {
		work, m, err = j.unpack(ctx, true)
	}
	if err != nil {
		return nil, err
	}
	if err := j.s.publish(work, key); err != nil {
		return nil, errors.Join(err, removeTree(work))
	}
	j.tell(j.desc.Size, false)
	return m, nil
}

// unpack makes the layer in a new directory, with all memory to itself or with what others leave.
func (j *layerJob) unpack(ctx context.Context, alone bool) (work string, m *mark, err error) {
	if work, err = os.MkdirTemp(j.s.path(dirIngest), "unpack-*"); err != nil {
		return "", nil, err
	}
	if m, err = j.attempt(ctx, work, alone); err != nil {
		rerr := removeTree(work)
		if rerr != nil && errors.Is(err, errMemoryBusy) {
			err = nil // a second attempt would hide that something is left
		}
		return "", nil, errors.Join(err, rerr)
	}
	return work, m, nil
}

// publish gives a complete layer its name. What has it already is a layer that a crash made worthless.
func (s *Store) publish(work, key string) error {
	to := s.path(filepath.Join(dirLayers, key))
	if _, err := os.Lstat(to); err == nil {
		trash, err := s.discard(to)
		if err != nil {
			return err
		}
		defer removeTree(trash)
	}
	return os.Rename(work, to)
}

// fill unpacks the layer into work and writes its mark.
func (j *layerJob) fill(ctx context.Context, work string, alone bool) (*mark, error) {
	blob, err := j.s.openBlob(j.desc)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	m := &mark{DiffID: j.diffID.String(), Boot: j.s.boot}
	if j.erofs {
		err = j.fillBlob(ctx, work, blob, m, alone)
	} else {
		err = j.fillTree(ctx, work, blob, m, alone)
	}
	if err != nil {
		return nil, err
	}
	m.Hides, m.Root = m.RootOpaque, m.RootSet
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(data) > maxIndexFile { // it could not be read again
		return nil, &LimitError{Limit: "Memory", Max: j.s.limits.Memory}
	}
	return m, os.WriteFile(filepath.Join(work, fileMark), data, 0o600)
}

// fillTree makes a directory.
func (j *layerJob) fillTree(ctx context.Context, work string, blob *os.File, m *mark, alone bool) error {
	tree := filepath.Join(work, dirTree)
	if err := makeDirMode(tree, 0o755); err != nil {
		return err
	}
	err := j.stream(ctx, blob, alone, func(r pieces, n *notes) error {
		return writeTree(ctx, tree, r, j.s.policy, j.budget, m, treeOptions{inherited: j.inherited, giver: j.giver, notes: n})
	})
	if err != nil {
		return err
	}
	fi, err := os.Lstat(tree)
	if err == nil {
		m.Mode = uint32(fi.Mode().Perm())
	}
	return err
}

// stream decodes and hashes, within the memory that is granted, what write writes.
func (j *layerJob) stream(ctx context.Context, blob *os.File, alone bool, write func(r pieces, n *notes) error) error {
	buffered := bufio.NewReaderSize(blob, 4096)
	head, err := buffered.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	noted, release, err := j.grant(ctx, decodingOf(head), alone)
	if err != nil {
		return err
	}
	defer release()
	last := time.Time{}
	st, err := newBlobStream(ctx, blob, buffered, j.igzip, noted, j.budget, func(n int64) {
		if now := time.Now(); now.Sub(last) > 50*time.Millisecond {
			last = now
			j.tell(n, false)
		}
	})
	if err != nil {
		return err
	}
	defer st.close()
	if err := write(st, noted); err != nil {
		return err
	}
	got, err := st.finish()
	if err != nil {
		return err
	}
	if got != j.diffID {
		return because(ErrDigest, "it unpacks to %s, the config says %s", got, j.diffID)
	}
	return nil
}
