/* Packet sockets with rings, mapped and not, through which nothing has gone yet; and a socket of type SOCK_PACKET. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sys/socket.h>

#define ETHERTYPE 0x88b6 /* for experiments */
#define BLOCK 8192
#define BLOCKS 4
#define FRAME 2048
#define FRAMES (BLOCK / FRAME * BLOCKS)

static struct tpacket_req3 geometry = {.tp_block_size = BLOCK, .tp_block_nr = BLOCKS, .tp_frame_size = FRAME,
				       .tp_frame_nr = FRAMES, .tp_retire_blk_tov = 50};
static const struct sockaddr_ll lo = {.sll_family = AF_PACKET, .sll_ifindex = 1, .sll_halen = 6};

static int ring(int version, int option, size_t size)
{
	int fd = OK(socket(AF_PACKET, SOCK_RAW, 0));
	OK(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version));
	OK(setsockopt(fd, SOL_PACKET, option, &geometry, size));
	return fd;
}

static void hears(int fd)
{
	struct sockaddr_ll address = lo;
	address.sll_protocol = htons(ETHERTYPE);
	OK(bind(fd, (struct sockaddr *)&address, sizeof address));
}

static int option(int fd, int number)
{
	int value = -1;
	socklen_t size = sizeof value;
	OK(getsockopt(fd, SOL_PACKET, number, &value, &size));
	return value;
}

static void speak(const char *what)
{
	int fd = OK(socket(AF_PACKET, SOCK_DGRAM, 0));
	struct sockaddr_ll address = lo;
	address.sll_protocol = htons(ETHERTYPE);
	SAME(sendto(fd, what, strlen(what), 0, (struct sockaddr *)&address, sizeof address), strlen(what));
	close(fd);
}

static void wait_for(int fd)
{
	struct pollfd heard = {.fd = fd, .events = POLLIN};
	SAME(poll(&heard, 1, 10000), 1);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	int second = ring(TPACKET_V2, PACKET_RX_RING, sizeof(struct tpacket_req)), rcvbuf = 99999;
	OK(setsockopt(second, SOL_PACKET, PACKET_TX_RING, &geometry, sizeof(struct tpacket_req)));
	OK(setsockopt(second, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf));
	char *both = OK(mmap(NULL, 2 * BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, second, 0));
	hears(second);
	int third = ring(TPACKET_V3, PACKET_RX_RING, sizeof geometry);
	char *blocks = OK(mmap(NULL, BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, third, 0));
	hears(third);
	int unmapped = ring(TPACKET_V1, PACKET_RX_RING, sizeof(struct tpacket_req));
	int old = OK(socket(AF_PACKET, SOCK_PACKET, htons(ETHERTYPE)));
	struct sockaddr name = {.sa_family = AF_PACKET, .sa_data = "lo"}, now;
	OK(bind(old, &name, sizeof name));
	pid_t child = OK(fork());
	if (child == 0) { /* it shares the mapping */
		hold();
		wait_for(third);
		struct tpacket_block_desc *block = (void *)blocks;
		SAME(block->hdr.bh1.block_status & TP_STATUS_USER, TP_STATUS_USER);
		SAME(block->hdr.bh1.num_pkts, 1);
		_exit(0);
	}
	ready_and_hold();
	SAME(option(second, PACKET_VERSION), TPACKET_V2);
	SAME(option(third, PACKET_VERSION), TPACKET_V3);
	speak("hello");
	wait_for(second);
	struct tpacket2_hdr *frame = (void *)both;
	SAME(frame->tp_status & TP_STATUS_USER, TP_STATUS_USER);
	CHECK(memcmp(both + frame->tp_net, "hello", 5) == 0);
	reap(child);
	/* what is written into the ring for sending goes out, and comes in */
	frame->tp_status = TP_STATUS_KERNEL;
	struct tpacket2_hdr *out = (void *)(both + BLOCK * BLOCKS);
	memset((char *)out + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll), 0, 12);
	uint16_t type = htons(ETHERTYPE);
	memcpy((char *)out + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll) + 12, &type, 2);
	memcpy((char *)out + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll) + 14, "from the ring", 13);
	out->tp_len = 60;
	out->tp_status = TP_STATUS_SEND_REQUEST;
	SAME(OK(send(second, NULL, 0, 0)), 60);
	frame = (void *)(both + FRAME);
	wait_for(second);
	CHECK(memcmp(both + FRAME + frame->tp_net, "from the ring", 13) == 0);
	/* the one that is not mapped has its ring, too */
	CHECK(mmap(NULL, BLOCK * BLOCKS, PROT_READ, MAP_SHARED, unmapped, 0) != MAP_FAILED);
	/* the old kind */
	socklen_t size = sizeof now;
	OK(getsockname(old, &now, &size));
	CHECK(strcmp(now.sa_data, "lo") == 0);
	char bytes[128];
	SAME(recv(old, bytes, sizeof bytes, MSG_DONTWAIT), 14 + 5);
	CHECK(memcmp(bytes + 14, "hello", 5) == 0);
	pass();
}
