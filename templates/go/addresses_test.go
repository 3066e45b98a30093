package addresses

import "testing"

func TestLoopback(t *testing.T) {
	names, err := Loopback()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name == "127.0.0.1/8" {
			return
		}
	}
	t.Errorf("lo has %v, not 127.0.0.1/8", names)
}
