package image

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Settings are what an image's config says that can be changed: see [ImageSpec.Edit]. Fields of the config that are not here, known
// to nobody or only to others, stay as they are.
type Settings struct {
	ocispec.ImageConfig
	// Healthcheck, OnBuild and Shell are Docker's extensions.
	Healthcheck *Healthcheck
	// OnBuild are the instructions that a build from the image begins with.
	OnBuild []string
	// Shell is what shell forms of later instructions run in.
	Shell []string

	// Author and Platform are of the whole document.
	Author   string
	Platform ocispec.Platform
}

// SetEnv sets a variable, in the place where it is if it is there.
func (s *Settings) SetEnv(key, value string) {
	i := slices.IndexFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
	if i < 0 {
		s.Env = append(s.Env, key+"="+value)
		return
	}
	s.Env[i] = key + "=" + value
}

// SetLabel sets a label.
func (s *Settings) SetLabel(key, value string) {
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	s.Labels[key] = value
}

// runConfig is the member "config" of an image's config.
type runConfig struct {
	ocispec.ImageConfig
	Healthcheck *Healthcheck `json:"Healthcheck,omitempty"`
	OnBuild     []string     `json:"OnBuild,omitempty"`
	Shell       []string     `json:"Shell,omitempty"`
}

// runConfigKeys are the keys of runConfig.
var runConfigKeys = []string{"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "ArgsEscaped",
	"Healthcheck", "OnBuild", "Shell"}

// staleKeys are members of old Docker configs that speak of the container that an image was committed from.
var staleKeys = []string{"id", "parent", "parent_id", "container", "container_config"}

// configDocument is a config that is being changed.
type configDocument struct {
	keys     map[string]json.RawMessage // the whole document
	run      map[string]json.RawMessage // its member "config"
	settings Settings
	diffIDs  ocispec.RootFS
	history  []ocispec.History
	created  *time.Time
}

// newConfigDocument reads a config; nil is that of an empty image for a platform.
func newConfigDocument(data []byte, platform ocispec.Platform) (*configDocument, error) {
	d := &configDocument{keys: map[string]json.RawMessage{}, run: map[string]json.RawMessage{}}
	d.settings.Platform, d.diffIDs.Type = platform, "layers"
	if data == nil {
		return d, nil
	}
	c, err := ParseConfig(data)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &d.keys); err != nil {
		return nil, because(ErrDocument, "config: %v", err)
	}
	var doc struct {
		Config runConfig `json:"config"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, because(ErrDocument, "config: %v", err)
	}
	if raw := member(d.keys, "config"); raw != nil {
		if err := json.Unmarshal(raw, &d.run); err != nil {
			return nil, because(ErrDocument, "config: %v", err)
		}
	}
	if d.run == nil { // "config": null
		d.run = map[string]json.RawMessage{}
	}
	d.settings = Settings{ImageConfig: doc.Config.ImageConfig, Healthcheck: doc.Config.Healthcheck, OnBuild: doc.Config.OnBuild, Shell: doc.Config.Shell,
		Author: c.Spec.Author, Platform: c.Spec.Platform}
	d.diffIDs, d.history, d.created = c.Spec.RootFS, wholeHistory(c.Spec.History, len(c.DiffIDs)), c.Spec.Created
	return d, nil
}

// member finds a key in any case, as Go's decoder does.
func member(m map[string]json.RawMessage, key string) json.RawMessage {
	for k, v := range m {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return nil
}

// wholeHistory has a line for each layer: some builders write none, or fewer.
func wholeHistory(h []ocispec.History, layers int) []ocispec.History {
	n := 0
	for _, e := range h {
		if !e.EmptyLayer {
			n++
		}
	}
	h = slices.Clone(h)
	if n > layers {
		h, n = nil, 0
	}
	for ; n < layers; n++ {
		h = append(h, ocispec.History{Comment: "no history"})
	}
	return h
}

// encode writes the document.
func (d *configDocument) encode() ([]byte, error) {
	s := &d.settings
	d.diffIDs.Type = "layers"
	if d.diffIDs.DiffIDs == nil {
		d.diffIDs.DiffIDs = []digest.Digest{}
	}
	run, err := overlayKeys(d.run, runConfigKeys, runConfig{s.ImageConfig, s.Healthcheck, s.OnBuild, s.Shell})
	if err != nil {
		return nil, err
	}
	doc := struct {
		ocispec.Image
		Config map[string]json.RawMessage `json:"config"`
	}{ocispec.Image{Created: d.created, Author: s.Author, Platform: s.Platform, RootFS: d.diffIDs, History: d.history}, run}
	keys, err := overlayKeys(d.keys, append([]string{"created", "author", "architecture", "variant", "os", "os.version", "os.features", "config", "rootfs", "history"}, staleKeys...), doc)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	_, err = ParseConfig(data)
	return data, err
}

// overlayKeys replaces the named members of an object by those of value.
func overlayKeys(old map[string]json.RawMessage, names []string, value any) (map[string]json.RawMessage, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var now map[string]json.RawMessage
	if err := json.Unmarshal(data, &now); err != nil {
		return nil, err
	}
	for k, v := range old {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, k) }) {
			now[k] = v
		}
	}
	return now, nil
}
