// A program of sixteen processes that wait until they are killed.
#include <unistd.h>

int main(void) {
	for (int i = 1; i < 16; i++)
		if (!fork()) break;
	for (;;) pause();
}
