// Package dbus speaks as much of the D-Bus protocol as asking systemd for something takes: connecting over a Unix
// socket, calling methods, awaiting signals. It starts no goroutine, uses no reflection and imports no network stack;
// the libraries that do it all link package net and look users up by os/user, neither of which a program that runs
// containers needs.
//
// Source: the D-Bus specification, https://dbus.freedesktop.org/doc/dbus-specification.html.
package dbus
