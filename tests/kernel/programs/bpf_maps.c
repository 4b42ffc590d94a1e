/* Maps of BPF: what they are, what is in them, who has them; type information. */
#include "selfcheck.h"
#include <linux/bpf.h>
#include <linux/btf.h>

enum { ENTRIES = 5000 };

struct map {
	int fd;
	struct bpf_map_info info;
	bool frozen;
};

static long bpf(int command, union bpf_attr *attr) { return syscall(SYS_bpf, command, attr, sizeof *attr); }

static struct bpf_map_info info_of(int fd)
{
	struct bpf_map_info info = {0};
	union bpf_attr attr = {.info = {.bpf_fd = fd, .info_len = sizeof info, .info = (uintptr_t)&info}};
	OK(bpf(BPF_OBJ_GET_INFO_BY_FD, &attr));
	return info;
}

static struct map make(union bpf_attr attr, const char *name)
{
	strcpy(attr.map_name, name);
	int fd = OK(bpf(BPF_MAP_CREATE, &attr));
	return (struct map){fd, info_of(fd), false};
}

static struct map plain_map(int type, unsigned key, unsigned value, unsigned entries, unsigned flags, const char *name)
{
	return make((union bpf_attr){.map_type = type, .key_size = key, .value_size = value, .max_entries = entries,
				     .map_flags = flags}, name);
}

static void put(int fd, const void *key, const void *value)
{
	union bpf_attr attr = {.map_fd = fd, .key = (uintptr_t)key, .value = (uintptr_t)value};
	OK(bpf(BPF_MAP_UPDATE_ELEM, &attr));
}

static long get(int fd, const void *key, void *value)
{
	union bpf_attr attr = {.map_fd = fd, .key = (uintptr_t)key, .value = (uintptr_t)value};
	return bpf(BPF_MAP_LOOKUP_ELEM, &attr);
}

static uint64_t take(int fd)
{
	uint64_t value;
	union bpf_attr attr = {.map_fd = fd, .value = (uintptr_t)&value};
	OK(bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &attr));
	return value;
}

static void holds(int fd, uint32_t key, uint64_t want)
{
	uint64_t value = 0;
	OK(get(fd, &key, &value));
	SAME(value, want);
}

static int count(int fd, unsigned key_size)
{
	char key[64], next[64];
	int found = 0;
	union bpf_attr attr = {.map_fd = fd, .next_key = (uintptr_t)next};
	while (bpf(BPF_MAP_GET_NEXT_KEY, &attr) == 0) {
		memcpy(key, next, key_size);
		attr.key = (uintptr_t)key;
		found++;
	}
	SAME(errno, ENOENT);
	return found;
}

static void freeze(struct map *map)
{
	union bpf_attr attr = {.map_fd = map->fd};
	OK(bpf(BPF_MAP_FREEZE, &attr));
	map->frozen = true;
}

static void same_kind(const struct map *map)
{
	struct bpf_map_info now = info_of(map->fd), was = map->info;
	char path[64];
	now.id = was.id;
	CHECK(!now.btf_id == !was.btf_id);
	now.btf_id = was.btf_id;
	CHECK(memcmp(&now, &was, sizeof now) == 0);
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", map->fd);
	SAME(atoi(proc_field(path, "frozen:")), map->frozen);
}

/* One type: an unsigned integer of four bytes. */
static int load_types(void)
{
	static struct {
		struct btf_header header;
		struct btf_type type;
		uint32_t encoding;
		char strings[8];
	} types = {
		{BTF_MAGIC, BTF_VERSION, 0, sizeof(struct btf_header), 0, 16, 16, 6},
		{1, BTF_KIND_INT << 24, {4}},
		32,
		"\0word",
	};
	union bpf_attr attr = {.btf = (uintptr_t)&types, .btf_size = sizeof types - 2};
	return OK(bpf(BPF_BTF_LOAD, &attr));
}

int main(int argc, char **argv)
{
	enum { ARRAY, HASH, PERCPU, PERCPU_HASH, LRU, LPM, QUEUE, STACK, OUTER, TYPED, FROZEN, MAPS };
	struct map maps[MAPS];
	struct gate gate;
	uint64_t each[256], value;
	uint32_t key;
	begin(argc, argv);
	int cpus = sysconf(_SC_NPROCESSORS_CONF);
	CHECK(cpus <= 256);
	maps[ARRAY] = plain_map(BPF_MAP_TYPE_ARRAY, 4, 8, ENTRIES, 0, "an_array");
	maps[HASH] = plain_map(BPF_MAP_TYPE_HASH, 4, 8, 2 * ENTRIES, BPF_F_NO_PREALLOC, "a_hash");
	maps[PERCPU] = plain_map(BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 7, 0, "each_cpu");
	maps[PERCPU_HASH] = plain_map(BPF_MAP_TYPE_PERCPU_HASH, 4, 8, 7, 0, "each_cpu_hash");
	maps[LRU] = plain_map(BPF_MAP_TYPE_LRU_HASH, 4, 8, 1000, 0, "recent");
	maps[LPM] = plain_map(BPF_MAP_TYPE_LPM_TRIE, 8, 8, 10, BPF_F_NO_PREALLOC, "prefixes");
	maps[QUEUE] = plain_map(BPF_MAP_TYPE_QUEUE, 0, 8, 5, 0, "queue");
	maps[STACK] = plain_map(BPF_MAP_TYPE_STACK, 0, 8, 5, 0, "stack");
	maps[FROZEN] = plain_map(BPF_MAP_TYPE_ARRAY, 4, 8, 10, BPF_F_RDONLY_PROG, "frozen");
	int types = load_types();
	maps[TYPED] = make((union bpf_attr){.map_type = BPF_MAP_TYPE_HASH, .key_size = 4, .value_size = 4, .max_entries = 3,
					    .btf_fd = types, .btf_key_type_id = 1, .btf_value_type_id = 1}, "typed");
	struct map inner = plain_map(BPF_MAP_TYPE_ARRAY, 4, 8, 3, 0, "inner");
	maps[OUTER] = make((union bpf_attr){.map_type = BPF_MAP_TYPE_ARRAY_OF_MAPS, .key_size = 4, .value_size = 4,
					    .max_entries = 4, .inner_map_fd = inner.fd}, "outer");
	for (key = 0; key < ENTRIES; key++) {
		value = key * 0x9e3779b97f4a7c15u + 1;
		if (key % 3)
			put(maps[ARRAY].fd, &key, &value);
		put(maps[HASH].fd, &key, &value);
		if (key < 500)
			put(maps[LRU].fd, &key, &value);
	}
	for (key = 0; key < 7; key++) {
		for (int cpu = 0; cpu < cpus; cpu++)
			each[cpu] = key * 1000 + cpu;
		put(maps[PERCPU].fd, &key, each);
		if (key % 2)
			put(maps[PERCPU_HASH].fd, &key, each);
	}
	for (uint32_t bits = 8; bits <= 24; bits += 8) {
		uint32_t prefix[2] = {bits, 0x0403020a};
		value = bits;
		put(maps[LPM].fd, prefix, &value);
	}
	for (value = 1; value <= 7; value++) { /* round the end of the queue */
		put(maps[QUEUE].fd, NULL, &value);
		if (value < 4)
			SAME(take(maps[QUEUE].fd), value);
	}
	for (value = 1; value <= 3; value++)
		put(maps[STACK].fd, NULL, &value);
	key = 2, value = 4711;
	put(inner.fd, &key, &value);
	put(maps[OUTER].fd, &key, &inner.fd);
	close(inner.fd);
	key = 17;
	put(maps[TYPED].fd, &key, &key);
	for (key = 0; key < 10; key++) {
		value = key + 100;
		put(maps[FROZEN].fd, &key, &value);
	}
	freeze(&maps[FROZEN]);
	union bpf_attr by_id = {.map_id = maps[HASH].info.id, .open_flags = BPF_F_RDONLY};
	int reader = OK(bpf(BPF_MAP_GET_FD_BY_ID, &by_id));
	int alias = OK(dup(maps[HASH].fd));
	gate_make(&gate);
	pid_t child = OK(fork());
	if (child == 0) {
		gate_child_is_set(&gate);
		hold();
		key = 12345, value = 54321;
		put(alias, &key, &value);
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	reap(child);
	for (int i = 0; i < MAPS; i++)
		same_kind(&maps[i]);
	SAME(count(maps[HASH].fd, 4), ENTRIES + 1);
	holds(reader, 12345, 54321); /* one map, whoever has it */
	key = 1;
	FAILS(({ union bpf_attr attr = {.map_fd = reader, .key = (uintptr_t)&key, .value = (uintptr_t)&value};
		 bpf(BPF_MAP_UPDATE_ELEM, &attr); }), EPERM);
	SAME(count(maps[LRU].fd, 4), 500);
	for (key = 0; key < ENTRIES; key++) {
		value = key * 0x9e3779b97f4a7c15u + 1;
		holds(maps[ARRAY].fd, key, key % 3 ? value : 0);
		holds(maps[HASH].fd, key, value);
		if (key < 500)
			holds(maps[LRU].fd, key, value);
	}
	SAME(count(maps[PERCPU_HASH].fd, 4), 3);
	for (key = 0; key < 7; key++)
		for (int i = PERCPU; i <= PERCPU_HASH; i++) {
			if (i == PERCPU_HASH && key % 2 == 0)
				continue;
			OK(get(maps[i].fd, &key, each));
			for (int cpu = 0; cpu < cpus; cpu++)
				SAME(each[cpu], key * 1000 + cpu);
		}
	SAME(count(maps[LPM].fd, 8), 3);
	uint32_t address[2] = {32, 0x0403020a};
	OK(get(maps[LPM].fd, address, &value));
	SAME(value, 24);
	for (value = 4; value <= 7; value++)
		SAME(take(maps[QUEUE].fd), value);
	for (value = 3; value >= 1; value--)
		SAME(take(maps[STACK].fd), value);
	key = 2;
	OK(get(maps[OUTER].fd, &key, &value));
	by_id = (union bpf_attr){.map_id = (uint32_t)value};
	inner.fd = OK(bpf(BPF_MAP_GET_FD_BY_ID, &by_id));
	same_kind(&inner);
	holds(inner.fd, 2, 4711);
	key = 1;
	FAILS(get(maps[OUTER].fd, &key, &value), ENOENT);
	key = 17;
	uint32_t word = 0;
	OK(get(maps[TYPED].fd, &key, &word));
	SAME(word, 17);
	for (key = 0; key < 10; key++)
		holds(maps[FROZEN].fd, key, key + 100);
	FAILS(({ union bpf_attr attr = {.map_fd = maps[FROZEN].fd, .key = (uintptr_t)&key, .value = (uintptr_t)&value};
		 bpf(BPF_MAP_UPDATE_ELEM, &attr); }), EPERM);
	struct bpf_btf_info about = {0};
	union bpf_attr asked = {.info = {.bpf_fd = types, .info_len = sizeof about, .info = (uintptr_t)&about}};
	OK(bpf(BPF_OBJ_GET_INFO_BY_FD, &asked));
	SAME(about.id, info_of(maps[TYPED].fd).btf_id);
	pass();
}
