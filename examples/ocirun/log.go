package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/caisson-go/caisson"
)

// logger is where the library's warnings go: that a hook has failed after the end, which is no error any more; and all of them with --debug.
func (g *global) logger() *slog.Logger { return slog.New(warner{g}) }

type warner struct{ g *global }

func (w warner) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w warner) WithAttrs([]slog.Attr) slog.Handler           { return w }
func (w warner) WithGroup(string) slog.Handler                { return w }

func (w warner) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		var hook *caisson.HookError
		if err, ok := a.Value.Any().(error); ok && (w.g.debug || errors.As(err, &hook)) {
			w.g.write("warning", err.Error())
		}
		return true
	})
	return nil
}

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
