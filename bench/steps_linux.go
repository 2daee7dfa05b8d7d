package main

import "fmt"

// steps prints the median time of each system call of floor B.
func steps(w *workspace) error {
	text, err := w.floor.text(fmt.Sprintf("M cg %d %s", max(*rounds, 100), payloadT0), false)
	if err != nil {
		return err
	}
	fmt.Print(text)
	return w.keep("steps", text, text)
}
