package ringfence.peer;

import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;
import ringfence.peer.Records.Consent;
import ringfence.peer.Records.Decision;
import ringfence.peer.Records.Facts;
import ringfence.peer.Records.Objection;
import ringfence.peer.Records.Request;

/** The toy join: every request meets the consents and objections of its number, and gets one decision. */
final class ToyGuard {
    private static final Serde<String> NUMBER = Serdes.String();

    private ToyGuard() {}

    /**
     * Builds the topology. All topics are keyed by number and have equally many partitions, so nothing is repartitioned, and a
     * decision goes to the partition that its request came from.
     *
     * @param prefix begins every topic's name
     */
    static Topology topology(String prefix) {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Consent> consents = read(builder, prefix + "consents", Consent.class);
        KStream<String, Objection> objections = read(builder, prefix + "objections", Objection.class);
        KStream<String, Request> requests = read(builder, prefix + "call-requests", Request.class);

        KTable<String, Facts> facts = consents
                .groupByKey()
                .<Facts>cogroup((number, consent, known) -> known.with(consent))
                .cogroup(objections.groupByKey(), (number, objection, known) -> known.with(objection))
                .aggregate(
                        () -> Facts.NONE,
                        Materialized.<String, Facts>as(Stores.inMemoryKeyValueStore("facts"))
                                .withKeySerde(NUMBER)
                                .withValueSerde(new JsonSerde<>(Facts.class)));

        requests.leftJoin(facts, ToyGuard::decide)
                .to(
                        (number, decision, context) -> prefix + (decision.approved() ? "approved-calls" : "blocked-calls"),
                        Produced.with(NUMBER, new JsonSerde<>(Decision.class)));
        return builder.build();
    }

    /** Approves where a consent names the advertiser and no objection does; {@code facts} is null for a number without any. */
    static Decision decide(Request request, Facts facts) {
        boolean approved = facts != null
                && facts.consented().contains(request.advertiserId())
                && !facts.objected().contains(request.advertiserId());
        return new Decision(request.requestId(), request.number(), approved ? "approved" : "blocked", request.advertiserId());
    }

    private static <T> KStream<String, T> read(StreamsBuilder builder, String topic, Class<T> type) {
        return builder.stream(topic, Consumed.with(NUMBER, new JsonSerde<>(type)));
    }
}
