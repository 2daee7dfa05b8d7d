package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/image"
)

// options are what the command line says. The names are those of docker build.
type options struct {
	context   string
	file      string
	tags      []string
	target    string
	buildArgs map[string]string
	labels    map[string]string
	secrets   map[string]func() ([]byte, error)
	platform  *ocispec.Platform
	outputs   []target
	push      bool
	pull      bool
	noCache   bool
	network   string
	quiet     bool
	store     string
	idFile    string
	prune     bool
	demo      bool
}

// maxSecret bounds the content of a secret.
const maxSecret = 512 << 10

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{buildArgs: map[string]string{}, labels: map[string]string{}, secrets: map[string]func() ([]byte, error){}}
	f := flag.NewFlagSet("build", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, "Usage: build [OPTIONS] CONTEXT\n\nBuilds an image from a Dockerfile. Without arguments it builds a demonstration.\n\n")
		f.PrintDefaults()
	}
	o.flags(f)
	rest, err := parseMixed(f, args)
	if err != nil {
		return nil, err
	}
	switch {
	case len(rest) == 1:
		o.context = rest[0]
	case len(rest) > 1:
		err = fmt.Errorf("one context, not %q", rest)
	case o.prune:
	default:
		o.demo = true
	}
	if o.push && len(o.tags) == 0 {
		err = errors.New("-push needs -t, which says where to")
	}
	if !slices.Contains(networks, o.network) {
		err = fmt.Errorf("-network is one of %q", networks)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return o, err
}

// parseMixed takes flags after the context too.
func parseMixed(f *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		if f.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
}

func (o *options) flags(f *flag.FlagSet) {
	both := func(short, long, usage string, set func(string) error) {
		f.Func(short, usage, set)
		f.Func(long, "the same as -"+short, set)
	}
	both("t", "tag", "`NAME` of the image in the store; may be repeated", func(s string) error {
		_, err := image.ParseReference(s)
		o.tags = append(o.tags, s)
		return err
	})
	both("f", "file", "`FILE` with the instructions, \"-\" for standard input (default CONTEXT/Dockerfile)", func(s string) error { o.file = s; return nil })
	both("o", "output", "`OUTPUT`: a directory, or type=oci|docker|tar|local,dest=PATH (\"-\" for standard output); may be repeated", func(s string) error {
		t, err := parseTarget(s)
		o.outputs = append(o.outputs, t)
		return err
	})
	f.StringVar(&o.target, "target", "", "`STAGE` to build (default the last)")
	f.Func("build-arg", "`NAME=VALUE` of an ARG, or NAME for the value of the environment; may be repeated", func(s string) error { return setVar(o.buildArgs, s, true) })
	f.Func("label", "`NAME=VALUE` in the image; may be repeated", func(s string) error { return setVar(o.labels, s, false) })
	f.Func("secret", "`id=ID,src=FILE` or id=ID,env=VARIABLE for RUN --mount=type=secret; may be repeated", o.addSecret)
	f.Func("platform", "`OS/ARCH` to build for (default this machine's)", func(s string) error {
		p, err := image.ParsePlatform(s)
		o.platform = &p
		return err
	})
	f.BoolVar(&o.push, "push", false, "send the image to the registry that -t names")
	f.BoolVar(&o.pull, "pull", false, "look for newer base images")
	f.BoolVar(&o.noCache, "no-cache", false, "use nothing of earlier builds")
	f.StringVar(&o.network, "network", "auto", "`NETWORK` of RUN: none, host, bridge, pasta, or auto: a bridge for root, else pasta")
	f.BoolVar(&o.quiet, "q", false, "print nothing but the digest of the image")
	f.BoolVar(&o.quiet, "quiet", false, "the same as -q")
	f.StringVar(&o.store, "store", "", "`DIRECTORY` of the images (default the user's)")
	f.StringVar(&o.idFile, "iidfile", "", "write the digest of the image to `FILE`")
	f.BoolVar(&o.prune, "prune", false, "empty the cache, and do nothing else without a context")
}

func setVar(m map[string]string, s string, environment bool) error {
	k, v, ok := strings.Cut(s, "=")
	if k == "" || !ok && !environment {
		return fmt.Errorf("%q is not NAME=VALUE", s)
	}
	if !ok {
		if v, ok = os.LookupEnv(k); !ok {
			return nil
		}
	}
	m[k] = v
	return nil
}

// addSecret reads id=ID with src=FILE or env=VARIABLE; without either it is the variable of that name, else the file.
func (o *options) addSecret(s string) error {
	id, src, env := "", "", ""
	for field := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(field, "=")
		switch k {
		case "id":
			id = v
		case "src", "source":
			src = v
		case "env":
			env = v
		case "type":
			if v != "file" && v != "env" {
				return fmt.Errorf("type=%s, want file or env", v)
			}
		default:
			return fmt.Errorf("unknown field %q, want id, src or env", k)
		}
	}
	if id == "" || src != "" && env != "" {
		return fmt.Errorf("%q: want id=ID and one of src=FILE and env=VARIABLE", s)
	}
	if src == "" && env == "" {
		if _, ok := os.LookupEnv(id); ok {
			env = id
		} else {
			src = id
		}
	}
	o.secrets[id] = func() ([]byte, error) { return readSecret(src, env) }
	return nil
}

func readSecret(src, env string) ([]byte, error) {
	if env != "" {
		v, ok := os.LookupEnv(env)
		if !ok {
			return nil, fmt.Errorf("the variable %s is not set", env)
		}
		return []byte(v), nil
	}
	f, err := os.Open(src)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("%s is larger than %d bytes", src, maxSecret)
	}
	return data, err
}
