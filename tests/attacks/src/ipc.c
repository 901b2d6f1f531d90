/*
 * Reach System V objects and a POSIX message queue of somebody else: ipc KEY SHMID SEMID MSQID QUEUE.
 * One line a call: its name, and "ok" or the errno. What was read stands after it.
 */
#include "attacker.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static void show(const char *call, long result, const char *found)
{
	printf("%s %s %s\n", call, result < 0 ? error_name(errno) : "ok", result < 0 ? "" : found);
}

int main(int argc, char **argv)
{
	if (argc != 6)
		return 2;
	key_t key = (key_t)strtol(argv[1], NULL, 0);
	int shmid = atoi(argv[2]), semid = atoi(argv[3]), msqid = atoi(argv[4]);
	struct shmid_ds segment;
	struct sembuf down = {.sem_num = 0, .sem_op = -1, .sem_flg = IPC_NOWAIT};
	struct timespec now = {0, 0};
	struct {
		long type;
		char text[64];
	} message = {.type = 1, .text = ""};
	char text[8192] = "";

	show("shmget", shmget(key, 0, 0), "");
	show("shmget-private", shmget(IPC_PRIVATE, 4096, 0600), "");
	char *memory = shmat(shmid, NULL, 0);
	int attached = memory != (void *)-1;
	show("shmat", attached ? 0 : -1, attached ? memory : "");
	if (attached)
		memory[0] = 'X';
	show("shmdt", shmdt(attached ? memory : (char *)8), "");
	show("shmctl", shmctl(shmid, IPC_STAT, &segment), "");
	show("semget", semget(key, 0, 0), "");
	show("semop", syscall(SYS_semop, semid, &down, 1L), "");
	show("semtimedop", syscall(SYS_semtimedop, semid, &down, 1L, &now), "");
	show("semctl", semctl(semid, 0, GETVAL), "");
	show("msgget", msgget(key, 0), "");
	show("msgrcv", msgrcv(msqid, &message, sizeof(message.text), 0, IPC_NOWAIT), message.text);
	show("msgsnd", msgsnd(msqid, &message, 4, IPC_NOWAIT), "");
	show("msgctl", msgctl(msqid, IPC_STAT, (struct msqid_ds *)text), "");
	mqd_t queue = mq_open(argv[5], O_RDWR | O_NONBLOCK);
	show("mq_open", queue, "");
	memset(text, 0, sizeof(text));
	show("mq_timedreceive", mq_receive(queue, text, sizeof(text), NULL), text);
	show("mq_timedsend", mq_send(queue, "X", 1, 0), "");
	show("mq_notify", mq_notify(queue, NULL), "");
	show("mq_getsetattr", syscall(SYS_mq_getsetattr, queue, NULL, NULL), "");
	show("mq_unlink", mq_unlink(argv[5]), "");
	return 0;
}
