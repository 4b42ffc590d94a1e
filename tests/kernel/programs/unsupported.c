/* Things that cannot be saved, in two processes. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <sys/socket.h>

static void move(int fd, int to)
{
	OK(dup2(fd, to));
	close(fd);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct io_uring_params parameters = {0};
	struct gate gate;
	gate_make(&gate);
	move(OK(syscall(SYS_io_uring_setup, 8, &parameters)), 40);
	pid_t child = OK(fork());
	if (child == 0) {
		close(40);
		move(OK(syscall(SYS_userfaultfd, O_NONBLOCK)), 41);
		struct tpacket_req ring = {PAGE, 1, 2048, 2};
		int packets = OK(socket(AF_PACKET, SOCK_RAW, 0));
		OK(setsockopt(packets, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring));
		OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, packets, 0));
		close(packets); /* the mapping keeps it */
		gate_child_is_set(&gate);
		hold();
		OK(fcntl(41, F_GETFD));
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	OK(fcntl(40, F_GETFD));
	reap(child);
	pass();
}
