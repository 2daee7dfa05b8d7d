// Command matrix keeps what was found out in guests and on machines, and writes it into docs/kernels.md: which tests passed
// where, and what worked there.
//
//	matrix -add runs.tsv                            lines that the suite wrote for its RUNS
//	matrix -doctor 6.12/amd64/v2/systemd/root < F   what examples/doctor -json said in a place
//	matrix                                          the document again
//
// A place is the kernel, the architecture, the cgroup layout, what runs as PID 1, and who runs the tests. What is known of a
// place and a thing is replaced by what is added. The store is results.tsv beside this program.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	storeFile = "internal/testutil/vm/matrix/results.tsv"
	document  = "docs/kernels.md"
)

func main() {
	add := flag.String("add", "", "file with lines for the store")
	doctor := flag.String("doctor", "", "the place of which standard input is doctor's report")
	flag.Parse()
	if err := run(*add, *doctor); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

func run(add, doctor string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	store, err := readStore(filepath.Join(root, storeFile))
	if err != nil {
		return err
	}
	if add != "" {
		more, err := readStore(add)
		if err != nil {
			return err
		}
		store.add(more)
	}
	if doctor != "" {
		in, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		more, err := fromDoctor(doctor, in)
		if err != nil {
			return err
		}
		store.add(more)
	}
	if err := os.WriteFile(filepath.Join(root, storeFile), store.format(), 0o644); err != nil {
		return err
	}
	doc := filepath.Join(root, document)
	old, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	text, err := replaceSection(old, render(store))
	if err != nil || bytes.Equal(old, text) {
		return err
	}
	return os.WriteFile(doc, text, 0o644)
}

// moduleRoot finds the directory of the module, above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, serr := os.Stat(filepath.Join(dir, storeFile)); serr == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no %s above the working directory", storeFile)
		}
		dir = up
	}
	return "", err
}
