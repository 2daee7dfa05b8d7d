package rootfs

import "os"

func init() {
	scenarios["usage"] = scenario{source: func(d string) Source { return rootDir(d).UpperSize(1 << 20) }, check: fillUp}
	scenarios["usage-host"] = scenario{source: func(string) Source { return HostAll().UpperSize(1 << 20) }, check: fillUp}
}

// fillUp writes until nothing more goes in, and asks before and after.
func fillUp(c *checker) {
	root, err := os.Open("/")
	if err != nil {
		c.bad("%v", err)
		return
	}
	defer root.Close()
	if s, err := Usage(root); err != nil || s.Size != 1<<20 || s.Full() || s.Free < 1<<19 {
		c.bad("before: %+v, %v", s, err)
	}
	if err := os.WriteFile("/big", make([]byte, 2<<20), 0o644); err == nil {
		c.bad("2 MiB fit into 1 MiB")
	}
	if s, err := Usage(root); err != nil || s.Size != 1<<20 || !s.Full() {
		c.bad("after: %+v, %v", s, err)
	}
}
