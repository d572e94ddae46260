package ringfence.peer;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KafkaStreams.State;
import org.apache.kafka.streams.StreamsConfig;

/** Runs the toy join of {@link ToyGuard} until a signal; says {@code ready} once its table is restored and it has its partitions. */
public final class Peer {
    // The benchmark kills whoever has not ended after 10 s.
    private static final Duration CLOSE_WITHIN = Duration.ofSeconds(8);

    private Peer() {}

    /**
     * Reads its settings from {@code RINGFENCE_KAFKA}, {@code RINGFENCE_TOPIC_PREFIX} and {@code RINGFENCE_GROUP}.
     *
     * <p>Ends with code 143 after SIGTERM, 130 after SIGINT, 1 when its thread has died, for example of a record that is no JSON.
     */
    public static void main(String[] arguments) throws InterruptedException {
        KafkaStreams streams = new KafkaStreams(ToyGuard.topology(setting("RINGFENCE_TOPIC_PREFIX")), properties());
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((state, before) -> {
            if (state == State.RUNNING) {
                System.out.println("ready");
            } else if (state.hasCompletedShutdown()) {
                ended.countDown();
            }
        });
        // Streams does not leave its group by default, and whoever starts next waits for the session of the one that has gone: ready
        // after 46 s instead of 3 to 4 (2026-11-22).
        CloseOptions leave = CloseOptions.timeout(CLOSE_WITHIN).withGroupMembershipOperation(GroupMembershipOperation.LEAVE_GROUP);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(leave), "close"));
        streams.start();
        ended.await();
        System.exit(1); // only a failure gets here first; after a signal the JVM ends with the signal's code and this call just waits
    }

    /** What a team that asks for decisions within milliseconds would set; whatever is absent is the default of Kafka Streams 4.3. */
    private static Properties properties() {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, setting("RINGFENCE_GROUP"));
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, setting("RINGFENCE_KAFKA"));
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, Path.of("kafka-streams").toAbsolutePath().toString());
        // 0, the default: a task that holds requests and no facts asks the broker whether there are any before it goes on, so facts
        // that were in the log before a request count. More than 0 would hold every request up while no fact happens to come.
        properties.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, 0L);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.ACKS_CONFIG), "all");
        // Streams makes it 100 ms, and a decision would wait for that; 5 ms is what Kafka's own producer has since 4.0.
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 5);
        return properties;
    }

    private static String setting(String name) {
        String value = System.getenv(name);
        if (value == null || value.isEmpty()) {
            System.err.println(name + ": not set; want the same as a ringfence worker");
            System.exit(2);
        }
        return value;
    }
}
