/* Keeps one processor busy until whoever started it has ended or kills it. */
#include <signal.h>
#include <sys/prctl.h>

int main(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (volatile unsigned long turns = 0;; turns++)
        ;
}
