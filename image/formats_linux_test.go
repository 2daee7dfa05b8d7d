package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// Formats that are gzip and zstd for who does not know them are read as these: estargz, which is a gzip member for each piece and a table of contents, and zstd:chunked,
// which is a frame for each and the table in a frame to be skipped.
func TestFormatsReadAsTheirBase(t *testing.T) {
	data := layer(t, dir("d"), file("d/a", strings.Repeat("a", 100_000)), file("d/b", "b"), file("stargz.index.json", "{}"))
	var estargz, chunked bytes.Buffer
	for at := 0; at < len(data); at += 30_000 {
		piece := data[at:min(at+30_000, len(data))]
		estargz.Write(gz(t, piece))
		chunked.Write(zst(t, piece))
	}
	footer, err := gzip.NewWriterLevel(&estargz, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	footer.Extra = []byte("SG\x16\x00" + fmt.Sprintf("%016xSTARGZ", estargz.Len()))
	if err := footer.Close(); err != nil {
		t.Fatal(err)
	}
	skipped := func(text string) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(text))), text...)
	}
	chunked.Write(skipped("the table of contents"))
	for name, b := range map[string][]byte{"estargz": estargz.Bytes(), "zstd:chunked": chunked.Bytes(), "a frame to be skipped first": append(skipped("x"), chunked.Bytes()...)} {
		d := unpackOne(t, openStore(t, Options{}), blob{b, data})
		if err := sameText(d+"/d/a", strings.Repeat("a", 100_000)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := sameText(d+"/d/b", "b"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A path may have 4095 bytes, and an image more than a hundred layers.
func TestLongPathsManyLayers(t *testing.T) {
	long := strings.Repeat(strings.Repeat("n", 255)+"/", 16)[:4095]
	blobs := []blob{plain(layer(t, file(long, "deep")))}
	for i := range 130 {
		blobs = append(blobs, plain(layer(t, file(fmt.Sprint("f", i), fmt.Sprint(i)))))
	}
	s := openStore(t, Options{})
	putImage(t, s, "a", blobs...)
	u := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{}))
	if len(u.Dirs) != len(blobs) {
		t.Fatalf("%d layers", len(u.Dirs))
	}
	for i := range 130 {
		if err := sameText(fmt.Sprintf("%s/f%d", u.Dirs[129-i], i), fmt.Sprint(i)); err != nil {
			t.Error(err)
		}
	}
	root := must[*os.Root](t)(os.OpenRoot(u.Dirs[130]))
	defer root.Close()
	f, err := root.Open(long)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := must[[]byte](t)(io.ReadAll(f)); string(got) != "deep" {
		t.Errorf("%q", got)
	}
}
