package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// report writes an error where the caller looks for it: to the log, and to standard error.
func (g *global) report(err error) {
	fmt.Fprintf(os.Stderr, "ocirun: %v\n", err)
	if g.log != "" {
		g.write("error", err.Error())
	}
}

// debugf logs with --debug only.
func (g *global) debugf(format string, args ...any) {
	if g.debug {
		g.write("debug", fmt.Sprintf(format, args...))
	}
}

func (g *global) write(level, msg string) {
	out := os.Stderr
	if g.log != "" {
		f, err := os.OpenFile(g.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return
		}
		defer f.Close()
		out = f
	}
	now := time.Now().Format(time.RFC3339)
	if g.logFormat == "json" {
		line, err := json.Marshal(map[string]string{"level": level, "msg": msg, "time": now})
		if err == nil {
			fmt.Fprintf(out, "%s\n", line)
		}
		return
	}
	fmt.Fprintf(out, "time=%q level=%s msg=%q\n", now, level, msg)
}
