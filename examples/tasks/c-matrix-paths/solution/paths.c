#include <stdio.h>
#include <string.h>

#define MOST 512
#define BUCKETS 10

static char grid[MOST][MOST + 2];
static int cost[MOST][MOST];
static int queue[BUCKETS][MOST * MOST * 4];
static int length[BUCKETS];

int main(void) {
    int rows = 0;
    while (rows < MOST && fgets(grid[rows], sizeof grid[rows], stdin)) rows++;
    int columns = (int)strcspn(grid[0], "\n");
    memset(cost, 0x3f, sizeof cost);
    cost[0][0] = grid[0][0] - '0';
    queue[cost[0][0] % BUCKETS][length[cost[0][0] % BUCKETS]++] = 0;
    /* A step costs less than BUCKETS: the bucket of a cost holds nothing else until that cost is done. */
    for (int now = 0, empty = 0; empty < BUCKETS; now++) {
        int *bucket = queue[now % BUCKETS], *count = &length[now % BUCKETS];
        empty = *count ? 0 : empty + 1;
        for (int at = 0; at < *count; at++) {
            int y = bucket[at] / MOST, x = bucket[at] % MOST;
            if (cost[y][x] != now) continue;
            static const int dy[] = {1, -1, 0, 0}, dx[] = {0, 0, 1, -1};
            for (int way = 0; way < 4; way++) {
                int v = y + dy[way], u = x + dx[way];
                if (v < 0 || u < 0 || v >= rows || u >= columns) continue;
                int next = now + grid[v][u] - '0';
                if (next < cost[v][u]) {
                    cost[v][u] = next;
                    queue[next % BUCKETS][length[next % BUCKETS]++] = v * MOST + u;
                }
            }
        }
        *count = 0;
    }
    printf("%d\n", cost[rows - 1][columns - 1]);
    return 0;
}
