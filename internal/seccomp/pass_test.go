package seccomp

import "testing"

func TestPassing(t *testing.T) {
	for _, native := range []Arch{AMD64, ARM64} {
		base, err := DefaultProgram(native, 0)
		if err != nil {
			t.Fatal(err)
		}
		send, _ := native.Number("sendmsg")
		mount, _ := native.Number("mount")
		secret := Secret{1<<63 | 5, 7, 1 << 40}
		p := base.Passing(native, secret, send, mount)
		args := [6]uint64{1, 2, 3, secret[0], secret[1], secret[2]}
		for _, nr := range []uint32{send, mount} {
			if got := p.Answer(Call{Nr: nr, Arch: native.Token(), Args: args}); got != RetAllow {
				t.Errorf("%v: %d with the secret: %#x", native, nr, got)
			}
			for bit := range 192 {
				wrong := args
				wrong[3+bit/64] ^= 1 << (bit % 64)
				c := Call{Nr: nr, Arch: native.Token(), Args: wrong}
				if got, want := p.Answer(c), base.Answer(c); got != want {
					t.Errorf("%v: %d with bit %d wrong: %#x, want %#x", native, nr, bit, got, want)
				}
			}
		}
		for nr := range uint32(600) {
			for _, token := range []uint32{native.Token(), I386.Token(), ARM.Token(), 0} {
				c := Call{Nr: nr, Arch: token, Args: args}
				if (nr == send || nr == mount) && token == native.Token() {
					continue
				}
				if got, want := p.Answer(c), base.Answer(c); got != want {
					t.Fatalf("%v: call %d of %#x: %#x, want %#x", native, nr, token, got, want)
				}
			}
		}
	}
}

func TestNames(t *testing.T) {
	for i := range archCount {
		a := Arch(i + 1)
		for _, name := range []string{"read", "execve", "openat"} {
			nr, ok := a.Number(name)
			if !ok || a.Name(nr) != name || Of(a.Token(), nr) != a {
				t.Errorf("%v: %s is %d, which is %q of %v", a, name, nr, a.Name(nr), Of(a.Token(), nr))
			}
		}
		if a.Name(1<<20) != "" {
			t.Errorf("%v has a name for what is none", a)
		}
	}
	if Of(1, 1) != 0 || !Known("read") || Known("reed") {
		t.Error("unknown things have names")
	}
}
