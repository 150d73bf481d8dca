/* Makes system calls by number, each in a child, with arguments that no call accepts: prints `word errno`, 0 for success,
 * or `word -signal`. A word is a number; 32-bit calls have an i before it. An argument may follow a colon. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static long by_interrupt(long number, long first)
{
	long result = -ENOSYS;
#ifdef __x86_64__
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(-1L), "d"(-1L), "S"(-1L), "D"(-1L)
			 : "memory", "r8", "r9", "r10", "r11");
#endif
	return result;
}

static int probe(const char *word)
{
	const char *colon = strchr(word, ':');
	long first = colon ? strtol(colon + 1, NULL, 0) : -1;
	if (*word == 'i') {
		long result = by_interrupt(strtol(word + 1, NULL, 0), first);
		return result < 0 && result > -4096 ? -result : 0;
	}
	return syscall(strtol(word, NULL, 0), first, -1L, -1L, -1L, -1L, -1L) < 0 ? errno : 0;
}

int main(int count, char **words)
{
	for (int i = 1; i < count; i++) {
		int status;
		pid_t child = fork();
		if (child == 0) {
			alarm(1); /* some calls wait for ever */
			_exit(probe(words[i]));
		}
		if (child < 0 || waitpid(child, &status, 0) != child)
			return 1;
		printf("%s %d\n", words[i], WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
	}
	return 0;
}
