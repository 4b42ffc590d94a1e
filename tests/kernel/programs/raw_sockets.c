/* Raw and packet sockets, and a UDP socket in a multicast group: what they are set to, and that they hear again. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <linux/icmp.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#define PROTOCOL 253 /* for experiments: RFC 3692 */

static struct sockaddr_in at(const char *host, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	SAME(inet_pton(AF_INET, host, &address.sin_addr), 1);
	return address;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	unsigned lo = 1; /* the loopback interface of every network namespace */
	int raw = OK(socket(AF_INET, SOCK_RAW, PROTOCOL)), value = 77;
	struct sockaddr_in here = at("127.0.0.1", 0), other = at("127.0.0.7", 0);
	OK(bind(raw, (struct sockaddr *)&here, sizeof here));
	OK(connect(raw, (struct sockaddr *)&other, sizeof other));
	OK(setsockopt(raw, IPPROTO_IP, IP_TTL, &value, sizeof value));
	int icmp = OK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
	struct icmp_filter filter = {.data = ~0u};
	OK(setsockopt(icmp, SOL_RAW, ICMP_FILTER, &filter, sizeof filter));

	int packet = OK(socket(AF_PACKET, SOCK_DGRAM, 0));
	struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = lo};
	OK(bind(packet, (struct sockaddr *)&link, sizeof link));

	int member = OK(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in group = at("239.255.77.78", 0);
	socklen_t length = sizeof group;
	OK(bind(member, (struct sockaddr *)&group, sizeof group));
	OK(getsockname(member, (struct sockaddr *)&group, &length));
	struct ip_mreqn request = {.imr_multiaddr = group.sin_addr, .imr_ifindex = lo};
	OK(setsockopt(member, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request));
	int sender = OK(socket(AF_INET, SOCK_DGRAM, 0));
	OK(setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &here.sin_addr, sizeof here.sin_addr));

	ready_and_hold();
	length = sizeof value;
	OK(getsockopt(raw, IPPROTO_IP, IP_TTL, &value, &length));
	SAME(value, 77);
	length = sizeof filter;
	memset(&filter, 0, sizeof filter);
	OK(getsockopt(icmp, SOL_RAW, ICMP_FILTER, &filter, &length));
	SAME(filter.data, ~0u);
	char bytes[128];
	int answer = OK(socket(AF_INET, SOCK_RAW, PROTOCOL));
	OK(bind(answer, (struct sockaddr *)&other, sizeof other));
	SAME(send(raw, "question", 8, 0), 8);
	SAME(recv(answer, bytes, sizeof bytes, 0), 28);
	SAME(sendto(answer, "answer", 6, 0, (struct sockaddr *)&here, sizeof here), 6);
	SAME(recv(raw, bytes, sizeof bytes, 0), 26);
	CHECK(memcmp(bytes + 20, "answer", 6) == 0);

	struct sockaddr_ll now;
	length = sizeof now;
	OK(getsockname(packet, (struct sockaddr *)&now, &length));
	SAME(ntohs(now.sll_protocol), 0x88b5);
	SAME(now.sll_ifindex, lo);
	int speaker = OK(socket(AF_PACKET, SOCK_DGRAM, 0));
	link.sll_halen = 6;
	SAME(sendto(speaker, "frame", 5, 0, (struct sockaddr *)&link, sizeof link), 5);
	SAME(recv(packet, bytes, sizeof bytes, 0), 5);

	SAME(sendto(sender, "to all", 6, 0, (struct sockaddr *)&group, sizeof group), 6);
	struct pollfd heard = {.fd = member, .events = POLLIN};
	SAME(poll(&heard, 1, 5000), 1);
	SAME(recv(member, bytes, sizeof bytes, 0), 6);
	pass();
}
