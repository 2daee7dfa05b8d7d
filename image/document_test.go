package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const manifestText = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + someDigest + `","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + someDigest + `","size":3}]}`

const indexText = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + someDigest + `","size":2,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}}]}`

func TestParseDocuments(t *testing.T) {
	if m, err := parseManifest([]byte(manifestText), ocispec.MediaTypeImageManifest); err != nil || len(m.Layers) != 1 {
		t.Errorf("%v, %v", m, err)
	}
	if i, err := parseIndex([]byte(indexText), ocispec.MediaTypeImageIndex); err != nil || len(i.Manifests) != 1 {
		t.Errorf("%v, %v", i, err)
	}
	edit := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(s, old, new, 1)
	}
	for name, text := range map[string]string{
		"empty": "", "null": "null", "array": "[]", "number": "1", "two": manifestText + manifestText, "cut": manifestText[:100],
		"both shapes":    edit(manifestText, `"layers"`, `"manifests":[],"layers"`),
		"schema 1":       edit(manifestText, `"layers"`, `"fsLayers":[],"layers"`),
		"no layers":      edit(manifestText, `"layers"`, `"lairs"`),
		"other type":     edit(manifestText, `image.manifest.v1`, `image.index.v1`),
		"case":           edit(manifestText, `"layers"`, `"Layers":[],"layers"`),
		"twice":          edit(manifestText, `"layers"`, `"layers":[],"layers"`),
		"nested twice":   edit(manifestText, `"size":3`, `"size":4,"size":3`),
		"negative size":  edit(manifestText, `"size":3`, `"size":-3`),
		"digest as path": edit(manifestText, someDigest, "sha256:../../etc/passwd"),
		"other digest":   edit(manifestText, someDigest, "md5:d41d8cd98f00b204e9800998ecf8427e"),
		"upper case":     edit(manifestText, someDigest, strings.ToUpper(someDigest)),
		"long type":      edit(manifestText, "image.layer.v1.tar", strings.Repeat("x", 300)),
		"deep":           edit(manifestText, `"layers"`, `"x":`+strings.Repeat(`{"":`, 1000)+"0"+strings.Repeat("}", 1000)+`,"layers"`),
		"deep arrays":    edit(manifestText, `"layers"`, `"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`,"layers"`),
		"wide":           edit(manifestText, `"layers"`, `"x":[0`+strings.Repeat(",{}", maxDocValues)+`],"layers"`),
		"many layers":    edit(manifestText, `"layers":[`, `"layers":[`+strings.Repeat(`{"mediaType":"x","digest":"`+someDigest+`","size":3},`, 500)),
	} {
		if m, err := parseManifest([]byte(text), ocispec.MediaTypeImageManifest); !errors.Is(err, ErrDocument) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for name, text := range map[string]string{
		"deep": edit(manifestText, `"layers"`, `"x":`+strings.Repeat(`[{"":`, 498)+"0"+strings.Repeat("}]", 498)+`,"layers"`),
		"wide": edit(manifestText, `"layers"`, `"x":[0`+strings.Repeat(",{}", maxDocValues-20)+`],"layers"`),
	} {
		if _, err := parseManifest([]byte(text), ocispec.MediaTypeImageManifest); err != nil {
			t.Errorf("%s, within the bounds: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"both shapes": edit(indexText, `"manifests"`, `"config":{},"manifests"`), "layers": edit(indexText, `"manifests"`, `"layers":[],"manifests"`),
		"manifest": manifestText, "twice": edit(indexText, `"manifests"`, `"manifests":[],"manifests"`), "case": edit(indexText, `"manifests"`, `"Layers":[],"manifests"`),
	} {
		if m, err := parseIndex([]byte(text), ocispec.MediaTypeImageIndex); !errors.Is(err, ErrDocument) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestPlatforms(t *testing.T) {
	p := func(s string) *ocispec.Platform {
		v, err := ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		return &v
	}
	for _, c := range []struct {
		want string
		have []string
		at   int
	}{
		{"linux/amd64", []string{"linux/arm64", "linux/amd64", "windows/amd64"}, 1},
		{"aarch64", []string{"linux/amd64", "linux/arm64/v8"}, 1},
		{"linux/arm/v7", []string{"linux/arm/v5", "linux/arm/v6", "linux/arm64"}, 1},
		{"linux/arm/v6", []string{"linux/arm/v7"}, -1},
		{"linux/amd64", []string{"linux/amd64/v3"}, -1},
		{"linux/amd64/v3", []string{"linux/amd64", "linux/amd64/v2"}, 1},
		{"linux/riscv64", []string{"linux/amd64"}, -1},
		{"linux/amd64", nil, -1},
	} {
		var list []ocispec.Descriptor
		for i, h := range c.have {
			list = append(list, ocispec.Descriptor{Platform: p(h), Size: int64(i)})
		}
		got := choosePlatform(list, *p(c.want))
		if c.at < 0 && got != nil || c.at >= 0 && (got == nil || got.Size != int64(c.at)) {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if d := choosePlatform([]ocispec.Descriptor{{Size: 7}}, *p("arm64")); d == nil || d.Size != 7 {
		t.Error("the only one, without a platform")
	}
	for _, s := range []string{"", "/", "a/", "/b", "a/b/", "a/b/c/d", "a b"} {
		if _, err := ParsePlatform(s); !errors.Is(err, ErrPlatform) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestConfigProcess(t *testing.T) {
	c, err := ParseConfig([]byte(`{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/e","1"],"Cmd":["c"],"Env":["PATH=/bin","A=1"],"User":"web","WorkingDir":"/w/../srv","StopSignal":"SIGRTMIN+3","ExposedPorts":{"80/tcp":{},"443/tcp":{}},"Volumes":{"/data":{}},"Labels":{"x":"y"},"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000,"Retries":3}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(c.ExposedPorts, c.Volumes, c.Labels, c.Healthcheck.Test, c.Healthcheck.Retries) != "[443/tcp 80/tcp] [/data] map[x:y] [CMD-SHELL true] 3" {
		t.Errorf("%+v", c)
	}
	for _, x := range []struct {
		o    Overrides
		want string
	}{
		{Overrides{}, "{[/e 1 c] [PATH=/bin A=1] /srv web 37}"},
		{Overrides{Args: []string{"x", "y"}}, "{[/e 1 x y] [PATH=/bin A=1] /srv web 37}"},
		{Overrides{Entrypoint: []string{"/o"}}, "{[/o] [PATH=/bin A=1] /srv web 37}"},
		{Overrides{Entrypoint: []string{}, Args: []string{"sh"}, Env: []string{"A=2", "B=3", "B=4"}, User: "0", Dir: "/"}, "{[sh] [PATH=/bin A=2 B=4] / 0 37}"},
	} {
		if got := fmt.Sprint(c.Process(x.o)); got != x.want {
			t.Errorf("%+v: %s, want %s", x.o, got, x.want)
		}
	}
	if got := fmt.Sprint((&Config{}).Process(Overrides{})); got != "{[] [] / 0:0 15}" {
		t.Error(got)
	}
	for _, bad := range []string{"{}x", `{"config":{"Env":["x"]}}`, `{"config":{"Env":["=x"]}}`, `{"config":{"Env":["A=\u0000"]}}`, `{"config":{"WorkingDir":"rel"}}`, `{"config":{"StopSignal":"SIGNO"}}`,
		`{"config":{"StopSignal":"65"}}`, `{"config":{"StopSignal":"TERM+1"}}`, `{"config":{"User":"a\nroot"}}`, `{"config":{"Cmd":["a\u0000"]}}`, `{"rootfs":{"diff_ids":["x"]}}`, `{"layers":[]}`, `{"config":{},"config":{}}`} {
		if _, err := ParseConfig([]byte(bad)); !errors.Is(err, ErrDocument) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzDocuments(f *testing.F) {
	for _, s := range []string{manifestText, indexText, `{"config":{"Entrypoint":["/e"]},"rootfs":{"diff_ids":["` + someDigest + `"]}}`, "{}", "null", `{"a":[{"a":1,"a":2}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseManifest(data, ocispec.MediaTypeImageManifest); err == nil {
			if _, err := parseIndex(data, ocispec.MediaTypeImageIndex); err == nil {
				t.Fatalf("both a manifest and an index: %s", data)
			}
			for _, l := range append(m.Layers, m.Config) {
				if _, err := ParseDigest(l.Digest.String()); err != nil || l.Size < 0 {
					t.Fatalf("%+v", l)
				}
			}
		} else if !errors.Is(err, ErrDocument) {
			t.Fatal(err)
		}
		if c, err := ParseConfig(data); err == nil {
			if p := c.Process(Overrides{}); p.Dir == "" || p.Dir[0] != '/' || p.User == "" || p.StopSignal < 1 || p.StopSignal > 64 {
				t.Fatalf("%+v", p)
			}
		} else if !errors.Is(err, ErrDocument) {
			t.Fatal(err)
		}
	})
}

func TestHealthcheckCommand(t *testing.T) {
	for _, c := range []struct {
		h     *Healthcheck
		shell []string
		want  []string
		fails bool
	}{
		{nil, nil, nil, false}, {&Healthcheck{}, nil, nil, false}, {&Healthcheck{Test: []string{"NONE"}}, nil, nil, false},
		{&Healthcheck{Test: []string{"CMD", "/bin/x", "a b"}}, []string{"ash"}, []string{"/bin/x", "a b"}, false},
		{&Healthcheck{Test: []string{"CMD-SHELL", "a | b"}}, nil, []string{"/bin/sh", "-c", "a | b"}, false},
		{&Healthcheck{Test: []string{"CMD-SHELL", "a"}}, []string{"/bin/ash", "-e", "-c"}, []string{"/bin/ash", "-e", "-c", "a"}, false},
		{&Healthcheck{Test: []string{"CMD"}}, nil, nil, true}, {&Healthcheck{Test: []string{"CMD", ""}}, nil, nil, true}, {&Healthcheck{Test: []string{"CMD-SHELL"}}, nil, nil, true},
		{&Healthcheck{Test: []string{"CMD-SHELL", "a", "b"}}, nil, nil, true}, {&Healthcheck{Test: []string{"cmd", "a"}}, nil, nil, true},
		{&Healthcheck{Test: []string{""}}, nil, nil, true}, {&Healthcheck{Test: []string{"CMD", "a\x00"}}, nil, nil, true},
	} {
		got, err := c.h.Command(c.shell)
		if !slices.Equal(got, c.want) || errors.Is(err, ErrDocument) != c.fails || (err == nil) == c.fails {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	c, err := ParseConfig([]byte(`{"architecture":"amd64","os":"linux","config":{"Shell":["/bin/ash","-c"],"Healthcheck":{"Test":["CMD-SHELL","true"]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Healthcheck.Command(c.Shell); err != nil || fmt.Sprint(got) != "[/bin/ash -c true]" {
		t.Errorf("%q, %v", got, err)
	}
}
