// Package logs writes what a container puts out to files, which it rotates by size, and reads and follows them, also from
// another program and while they are written.
//
//	web.log       the current file
//	web.log.7     the one before; the numbers grow, so that a name stands for the same content as long as it exists
//	web.log.6
//	web.log.new   for a moment, while the files change places
//
// Entries are whole lines of a file, appended with one write(2) each, or many together. What a killed program has left of
// one is cut off when the file is opened for writing again.
package logs
