/* Named datagram sockets with queued messages whose sender is named. */
#include "selfcheck.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	OK(chdir(test_directory));
	struct sockaddr_un server = {.sun_family = AF_UNIX, .sun_path = "server"}, client = {.sun_family = AF_UNIX, .sun_path = "client"}, from = {0};
	int receiver = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), sender = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	OK(bind(receiver, (struct sockaddr *)&server, sizeof server));
	OK(bind(sender, (struct sockaddr *)&client, sizeof client));
	OK(connect(sender, (struct sockaddr *)&server, sizeof server));
	SAME(send(sender, "queued", 6, 0), 6);
	ready_and_hold();
	char bytes[32];
	socklen_t length = sizeof from;
	SAME(recvfrom(receiver, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &length), 6);
	if (strcmp(from.sun_path, "client") != 0)
		FAIL("the message is from \"%s\"", from.sun_path);
	SAME(sendto(receiver, "reply", 5, 0, (struct sockaddr *)&client, sizeof client), 5);
	SAME(recv(sender, bytes, sizeof bytes, MSG_DONTWAIT), 5);
	SAME(send(sender, "more", 4, 0), 4);
	SAME(recv(receiver, bytes, sizeof bytes, MSG_DONTWAIT), 4);
	pass();
}
