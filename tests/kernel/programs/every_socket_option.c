/* Every option that setsockopt(2) changes and getsockopt(2) tells of, each on a socket of its own. */
#include "selfcheck.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define LONGEST 64
#define MOST 600
#define UDPLITE 136
#define MPTCP 262
#define SOL_PACKET_ 263
#define SOL_NETLINK_ 270

struct value {
	char bytes[LONGEST];
	socklen_t size;
};

static struct {
	const char *kind;
	int fd, level, number;
	struct value value;
} set_ones[MOST];
static int count;

static const struct kind {
	const char *group, *name;
	int family, type, protocol, levels[4];
} kinds[] = {
	{"unix", "stream", AF_UNIX, SOCK_STREAM, 0, {SOL_SOCKET}},
	{"unix", "dgram", AF_UNIX, SOCK_DGRAM, 0, {SOL_SOCKET}},
	{"unix", "pair", AF_UNIX, SOCK_SEQPACKET, 0, {SOL_SOCKET}},
	{"tcp", "tcp4", AF_INET, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP}},
	{"tcp", "tcp6", AF_INET6, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP}},
	{"listening", "tcp4", AF_INET, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP}},
	{"listening", "tcp6", AF_INET6, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP}},
	{"listening", "mptcp", AF_INET, SOCK_STREAM, MPTCP, {SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP}},
	{"connected", "tcp4", AF_INET, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP}},
	{"connected", "tcp6", AF_INET6, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP}},
	{"ended", "tcp4", AF_INET, SOCK_STREAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP}},
	{"udp", "udp4", AF_INET, SOCK_DGRAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_UDP}},
	{"udp", "udp6", AF_INET6, SOCK_DGRAM, 0, {SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP}},
	{"udp", "udplite", AF_INET, SOCK_DGRAM, UDPLITE, {SOL_SOCKET, IPPROTO_IP, IPPROTO_UDP, UDPLITE}},
	{"raw", "raw4", AF_INET, SOCK_RAW, 253, {SOL_SOCKET, IPPROTO_IP}},
	{"raw", "raw6", AF_INET6, SOCK_RAW, 253, {SOL_SOCKET, IPPROTO_IPV6, SOL_RAW}},
	{"raw", "icmp", AF_INET, SOCK_RAW, IPPROTO_ICMP, {SOL_RAW}},
	{"raw", "icmpv6", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, {SOL_RAW, IPPROTO_ICMPV6}},
	{"raw", "raw4 with headers", AF_INET, SOCK_RAW, IPPROTO_RAW, {IPPROTO_IP}},
	{"raw", "raw6 with headers", AF_INET6, SOCK_RAW, IPPROTO_RAW, {IPPROTO_IPV6}},
	{"other", "packet", AF_PACKET, SOCK_RAW, 0, {SOL_SOCKET, SOL_PACKET_}},
	{"other", "netlink", AF_NETLINK, SOCK_RAW, 0, {SOL_SOCKET, SOL_NETLINK_}},
};

static const struct {
	const char *bytes;
	int size;
} candidates[] = {
	{"\1\0\0\0", 4}, {"\0\0\0\0", 4}, {"\2\0\0\0", 4}, {"\3\0\0\0", 4}, {"\7\0\0\0", 4}, {"\115\0\0\0", 4},
	{"\350\3\0\0", 4}, {"\240\206\1\0", 4}, {"\177\0\0\1", 4}, {"\377\377\377\377", 4},
	{"\1\0\0\0\1\0\0\0", 8}, {"\20\0\0\0\0\0\0\0", 8}, {"\1\0\0\0\0\0\0\0", 8}, {"\0\0\0\0\1\0\0\0", 8},
	{"\5\0\0\0\0\0\0\0\200\226\230\0\0\0\0\0", 16}, {"lo", 3}, {"reno", 5}, {"\224\4\0\0", 4},
	{"\0\0\1\4\0\0\0\0", 8},			     /* an extension header with PadN */
	{"\0\2\2\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 24}, /* a routing header of type 2 */
	{"0123456789abcdef", 16},
	{"\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377"
	 "\377\377\377",
	 32},
};

/* What is not as it was set: it changes by itself, needs the repair mode, or means nothing to such a socket. */
static bool left_out(const struct kind *kind, int level, int number)
{
	bool internet = kind->family == AF_INET || kind->family == AF_INET6;
	if (level == SOL_SOCKET)
		return number == SO_ATTACH_FILTER || (number == 49 /* SO_INCOMING_CPU */ && strcmp(kind->group, "listening")) ||
		       ((number == SO_BINDTODEVICE || number == 62 /* SO_BINDTOIFINDEX */) && !internet) ||
		       (number == 72 /* SO_BUF_LOCK */ && kind->protocol == MPTCP);
	if (level == IPPROTO_TCP)
		return number == TCP_QUICKACK || number == TCP_REPAIR ||
		       (number == 33 /* TCP_FASTOPEN_KEY */ && strcmp(kind->group, "listening")) ||
		       ((number == TCP_WINDOW_CLAMP || number == TCP_MAXSEG) && strcmp(kind->group, "ended") == 0);
	if (level == IPPROTO_IP)
		return kind->type == SOCK_STREAM && (number == IP_MULTICAST_LOOP || number == IP_MULTICAST_ALL);
	/* only that there is a number, not which */
	return level == IPPROTO_IPV6 &&
	       (number == 22 /* IPV6_ROUTER_ALERT */ ||
		(kind->type == SOCK_STREAM && (number == IPV6_MULTICAST_LOOP || number == IPV6_MULTICAST_ALL)));
}

static bool get(int fd, int level, int number, struct value *value)
{
	*value = (struct value){.size = LONGEST};
	return getsockopt(fd, level, number, value->bytes, &value->size) == 0;
}

static int connected_to(struct sockaddr_storage *address, socklen_t size, int family)
{
	int fd = OK(socket(family, SOCK_STREAM, 0));
	OK(connect(fd, (struct sockaddr *)address, size));
	return fd;
}

static int make(const struct kind *kind)
{
	if (strcmp(kind->name, "pair") == 0) {
		int pair[2];
		OK(socketpair(kind->family, kind->type, 0, pair));
		return pair[0];
	}
	int fd = OK(socket(kind->family, kind->type, kind->protocol));
	bool ended = strcmp(kind->group, "ended") == 0;
	if (!ended && strcmp(kind->group, "connected") != 0 && strcmp(kind->group, "listening") != 0)
		return fd;
	struct sockaddr_storage here = {.ss_family = kind->family};
	socklen_t size = sizeof here;
	if (kind->family == AF_INET6)
		((struct sockaddr_in6 *)&here)->sin6_addr = in6addr_loopback;
	else
		((struct sockaddr_in *)&here)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	OK(bind(fd, (struct sockaddr *)&here, size));
	OK(listen(fd, 1));
	if (strcmp(kind->group, "listening") == 0)
		return fd;
	OK(getsockname(fd, (struct sockaddr *)&here, &size));
	int client = connected_to(&here, size, kind->family), accepted = OK(accept(fd, NULL, NULL));
	close(fd);
	if (ended) {
		OK(shutdown(client, SHUT_WR));
		close(accepted);
		char byte;
		SAME(read(client, &byte, 1), 0);
	}
	return client;
}

static void try_option(const struct kind *kind, int level, int number, int *spare)
{
	struct value fresh, now;
	if (*spare < 0)
		*spare = make(kind);
	if (!get(*spare, level, number, &fresh))
		return;
	for (unsigned i = 0; i < sizeof candidates / sizeof candidates[0]; i++) {
		if (setsockopt(*spare, level, number, candidates[i].bytes, candidates[i].size) < 0)
			continue;
		if (!get(*spare, level, number, &now) || memcmp(&now, &fresh, sizeof now) == 0)
			continue;
		if (count == MOST)
			FAIL("there are more than %d", MOST);
		set_ones[count].kind = kind->name;
		set_ones[count].fd = *spare;
		set_ones[count].level = level;
		set_ones[count].number = number;
		set_ones[count++].value = now;
		*spare = -1;
		return;
	}
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	CHECK(argc > 2);
	struct rlimit files;
	OK(getrlimit(RLIMIT_NOFILE, &files));
	files.rlim_cur = files.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &files));
	for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		if (strcmp(kinds[i].group, argv[2]) != 0)
			continue;
		int spare = -1;
		for (int level = 0; level < 4 && (level == 0 || kinds[i].levels[level] || kinds[i].levels[level - 1] == SOL_SOCKET);
		     level++)
			for (int number = 0; number < 128; number++)
				if (!left_out(&kinds[i], kinds[i].levels[level], number))
					try_option(&kinds[i], kinds[i].levels[level], number, &spare);
		if (spare >= 0)
			close(spare);
	}
	printf("%d options are set\n", count);
	CHECK(count > 8);
	ready_and_hold();
	char wrong[900] = "";
	for (int i = 0; i < count; i++) {
		struct value now;
		if (!get(set_ones[i].fd, set_ones[i].level, set_ones[i].number, &now) ||
		    memcmp(&now, &set_ones[i].value, sizeof now) != 0)
			snprintf(wrong + strlen(wrong), sizeof wrong - strlen(wrong), " %s %d %d: %#x not %#x;", set_ones[i].kind,
				 set_ones[i].level, set_ones[i].number, *(int *)now.bytes, *(int *)set_ones[i].value.bytes);
	}
	if (wrong[0])
		FAIL("%s", wrong);
	pass();
}
