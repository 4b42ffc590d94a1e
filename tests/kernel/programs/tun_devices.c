/* The program's side of network interfaces, in a network namespace of its own: tun, tap with two queues, one that lasts. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int attach(const char *name, int flags, int index)
{
	struct ifreq request = {.ifr_flags = flags};
	int fd = OK(open("/dev/net/tun", O_RDWR | O_NONBLOCK));
	strcpy(request.ifr_name, name);
	if (index)
		OK(ioctl(fd, TUNSETIFINDEX, &index));
	OK(ioctl(fd, TUNSETIFF, &request));
	return fd;
}

static int flags_of(int fd, const char *name)
{
	struct ifreq request = {0};
	OK(ioctl(fd, TUNGETIFF, &request));
	CHECK(strcmp(request.ifr_name, name) == 0);
	return request.ifr_flags & 0xffff;
}

static void configure(int socket, const char *name, const char *address)
{
	struct ifreq request = {0};
	struct sockaddr_in in = {.sin_family = AF_INET};
	inet_pton(AF_INET, address, &in.sin_addr);
	strcpy(request.ifr_name, name);
	memcpy(&request.ifr_addr, &in, sizeof in);
	OK(ioctl(socket, SIOCSIFADDR, &request));
	inet_pton(AF_INET, "255.255.255.0", &in.sin_addr);
	memcpy(&request.ifr_addr, &in, sizeof in);
	OK(ioctl(socket, SIOCSIFNETMASK, &request));
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	OK(ioctl(socket, SIOCSIFFLAGS, &request));
}

/* What is sent to a neighbour comes out of the file. */
static void comes_out(int socket, int fd, const char *address, const char *text)
{
	char packet[2048];
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	inet_pton(AF_INET, address, &to.sin_addr);
	OK(sendto(socket, text, strlen(text), 0, (void *)&to, sizeof to));
	for (;;) {
		SAME(OK(poll(&ready, 1, 10000)), 1);
		ssize_t got = OK(read(fd, packet, sizeof packet));
		if (memmem(packet, got, text, strlen(text)))
			return;
	}
}

/* What is written to the file comes in. */
static void comes_in(int fd, const char *address)
{
	struct {
		uint8_t ip[20], udp[8];
		char text[4];
	} packet = {{0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17}, {0, 7, 0x12, 0x34, 0, 12}, "word"};
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(0x1234)};
	char text[8];
	struct pollfd ready = {.events = POLLIN};
	inet_pton(AF_INET, address, packet.ip + 16);
	memcpy(packet.ip + 12, packet.ip + 16, 4);
	packet.ip[15] = 2;
	uint32_t sum = 0;
	for (int i = 0; i < 20; i += 2)
		sum += packet.ip[i] << 8 | packet.ip[i + 1];
	sum = ~((sum & 0xffff) + (sum >> 16));
	packet.ip[10] = sum >> 8;
	packet.ip[11] = sum;
	ready.fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
	OK(bind(ready.fd, (void *)&here, sizeof here));
	SAME(write(fd, &packet, sizeof packet), sizeof packet);
	SAME(OK(poll(&ready, 1, 10000)), 1);
	SAME(recv(ready.fd, text, sizeof text, 0), 4);
	close(ready.fd);
}

int main(int argc, char **argv)
{
	struct ifreq hardware = {.ifr_name = "tap7"}, now = {.ifr_name = "tap7"};
	begin(argc, argv);
	OK(unshare(CLONE_NEWNET));
	int udp = OK(socket(AF_INET, SOCK_DGRAM, 0));
	int tun = attach("job0", IFF_TUN | IFF_NO_PI, 17);
	int tap = attach("tap7", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE | IFF_VNET_HDR, 0);
	int queue = attach("tap7", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE | IFF_VNET_HDR, 0);
	int unused = OK(open("/dev/net/tun", O_RDWR)), header = 12, size = 77777;
	OK(ioctl(tap, TUNSETVNETHDRSZ, &header));
	OK(ioctl(tap, TUNSETSNDBUF, &size));
	OK(ioctl(tap, TUNSETOWNER, 1234));
	OK(ioctl(queue, TUNSETQUEUE, &(struct ifreq){.ifr_flags = IFF_DETACH_QUEUE}));
	int lasting = attach("lasts", IFF_TUN, 0);
	OK(ioctl(lasting, TUNSETPERSIST, 1));
	close(lasting);
	configure(udp, "job0", "10.9.0.1");
	configure(udp, "tap7", "10.8.0.1");
	OK(ioctl(udp, SIOCGIFHWADDR, &hardware));
	comes_out(udp, tun, "10.9.0.77", "before");
	int tun_flags = flags_of(tun, "job0"), tap_flags = flags_of(tap, "tap7"), queue_flags = flags_of(queue, "tap7");
	ready_and_hold();
	SAME(flags_of(tun, "job0"), tun_flags);
	SAME(flags_of(tap, "tap7"), tap_flags);
	SAME(flags_of(queue, "tap7"), queue_flags);
	SAME(if_nametoindex("job0"), 17);
	header = size = 0;
	OK(ioctl(tap, TUNGETVNETHDRSZ, &header));
	OK(ioctl(tap, TUNGETSNDBUF, &size));
	SAME(header, 12);
	SAME(size, 77777);
	OK(ioctl(udp, SIOCGIFHWADDR, &now));
	CHECK(memcmp(&now.ifr_hwaddr, &hardware.ifr_hwaddr, sizeof now.ifr_hwaddr) == 0);
	comes_out(udp, tun, "10.9.0.77", "behind");
	comes_in(tun, "10.9.0.1");
	SAME(fcntl(tun, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	OK(ioctl(unused, TUNSETIFF, &(struct ifreq){.ifr_name = "new", .ifr_flags = IFF_TUN}));
	lasting = attach("lasts", IFF_TUN, 0);
	SAME(flags_of(lasting, "lasts") & IFF_PERSIST, IFF_PERSIST);
	close(lasting);
	CHECK(if_nametoindex("lasts"));
	close(tun); /* and its interface goes with it */
	CHECK(!if_nametoindex("job0"));
	pass();
}
